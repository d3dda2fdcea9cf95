"""Studies: measurements that are no attack."""
