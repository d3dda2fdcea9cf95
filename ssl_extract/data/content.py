"""Hashes of inputs by content, type and shape."""

import hashlib

import numpy as np


def hash_rows(inputs: np.ndarray, padding: np.generic | None = None) -> np.ndarray:
    """Hashes each input [...] of an array [N, ...], bytes [N]; see `sets.hashes`."""
    inputs = np.ascontiguousarray(inputs)
    kind = f'{inputs.dtype.str}{inputs.shape[1:] if padding is None else "padded"}'.encode()
    rows = inputs if padding is None else (row[row != padding] for row in inputs)
    digests = [hashlib.blake2b(kind + row.tobytes(), digest_size=16) for row in rows]
    return np.array([digest.hexdigest() for digest in digests], dtype='S32')
