"""Extraction of self-supervised encoders through a query API, and defenses against it, in JAX."""
