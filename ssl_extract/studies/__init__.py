"""Measurements that are no attack."""
