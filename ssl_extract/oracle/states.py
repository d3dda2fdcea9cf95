"""States of accounts as arrays, for files."""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.errors import UserError
from ssl_extract.oracle.oracle import OracleState


def to_arrays(account: OracleState) -> dict[str, np.ndarray]:
    """Returns the leaves of an account's state by number; of a random key, its words."""
    leaves = jax.tree.leaves(account)
    return {str(i): np.asarray(_raw(leaf)) for i, leaf in enumerate(leaves)}


def from_arrays(arrays: dict[str, np.ndarray], example: OracleState, where: object) -> OracleState:
    """Returns the state of an account that `to_arrays` took apart.

    Args:
        arrays: the leaves by number.
        example: a state of the same oracle, or its shapes.
        where: the place of the arrays, for an error message.

    Raises:
        UserError: the arrays are of an account under another defense.
    """
    leaves, treedef = jax.tree.flatten(example)
    shapes = [jax.eval_shape(_raw, leaf).shape for leaf in leaves]
    if {str(i): shape for i, shape in enumerate(shapes)} != {k: a.shape for k, a in arrays.items()}:
        raise UserError(f'{where}: its account is of another defense; give each its folder')
    return jax.tree.unflatten(
        treedef,
        [
            jax.random.wrap_key_data(arrays[str(i)])
            if _is_key(leaf)
            else jnp.asarray(arrays[str(i)], leaf.dtype)
            for i, leaf in enumerate(leaves)
        ],
    )


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
