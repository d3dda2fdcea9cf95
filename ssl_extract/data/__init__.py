"""Data sets as arrays, and the guard that keeps queries and test images apart."""

from ssl_extract.data.overlap import check_disjoint
from ssl_extract.data.sets import Dataset, digest, distinct, hashes, load, require_labels

__all__ = ['Dataset', 'check_disjoint', 'digest', 'distinct', 'hashes', 'load', 'require_labels']
