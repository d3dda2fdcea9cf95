"""Decoys, the other secrets that a mark's secret is compared with.

To a suspect that never saw a marked answer all secrets are alike. So the statistic of the true
secret is one of many that are drawn alike, and

    p = (1 + number of decoys with a statistic at least as large) / (1 + number of decoys)

is at most alpha with probability at most alpha over the draw of the key, exactly, as in a
permutation test (Phipson and Smyth, https://arxiv.org/abs/1603.05766), whatever suspect, victim and
inputs are. The probability is over the key: independent encoders that resemble each other get
similar p-values under one key, so that an owner with an independent encoder can reject an unlucky
key before using it. A key that was chosen after the suspect was seen has no valid p-value.
"""

import jax
import jax.numpy as jnp
import numpy as np

NUM_DECOYS = 9_999
FOR_DECOYS = 2**31  # folded into the key; the first numbers are the splits of the key


def with_decoys(key: int, num_decoys: int) -> jax.Array:
    """Returns the secret of a key and those of its decoys, key[1 + num_decoys].

    >>> with_decoys(3, num_decoys=9).shape
    (10,)
    """
    secret = jax.random.key(key)
    decoys = jax.random.split(jax.random.fold_in(secret, FOR_DECOYS), num_decoys)
    return jnp.concatenate([secret[None], decoys])


def p_above(statistics: np.ndarray) -> float:
    """Returns the p-value of the first statistic among all of them; see the top of this file.

    >>> p_above(np.array([2.0, 0.0, 1.0, 3.0]))
    0.5
    """
    return float(np.mean(~(statistics < statistics[0])))  # NaN counts against the owner
