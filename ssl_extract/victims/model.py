"""The `Victim` type and its constructors.

A *traced* victim answers by a pure JAX function, which oracles compile into one program with charge
and defense. Any other victim answers NumPy arrays with NumPy arrays: a scikit-learn model, a
service, a table. Such a victim is called from the host, with the granted rows only.
"""

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract.checks import check, check_whole
from ssl_extract.encoders.trained import Encoder, content_hash
from ssl_extract.errors import UserError
from ssl_extract.identity import content_of, name_of
from ssl_extract.numerics import is_finite
from ssl_extract.ranges import Count
from ssl_extract.victims.service import Service


class Victim(NamedTuple):
    """A function that answers queries, with an identity.

    Attributes:
        address: the content hash of the function and its parameters. The address of a Python
            function is a name that its owner declares, since a change of the function behind a name
            cannot be detected.
        dim: D, the width of an answer.
        answer: `inputs [B, ...] -> outputs [B, D]`: a pure JAX function if `traced` (a
            `jax.tree_util.Partial`), else a function on NumPy arrays.
        traced: whether `answer` is a pure JAX function.
        answers: the kind of an answer: 'representation', 'projection', 'posteriors' or 'labels'.
        input_shape: of one input; None where the victim takes any.
        encoder: the network behind the answers; None of other victims.
        folder: the folder that the victim was read from; None of other victims.
        origin: the description of a stored victim, see `stored.Stored`; of weights of PyTorch a
            'note'; None of other victims.
        knows: `inputs [n, ...] -> bool[n]`, of a victim that has answers to fixed inputs only; None
            where every input is answered.
        service: of a victim that is asked over a network; None of other victims.
    """

    address: str
    dim: int
    answer: Callable[[Any], Any]
    traced: bool
    answers: str = 'representation'
    input_shape: tuple[int, ...] | None = None
    encoder: Encoder | None = None
    folder: epath.Path | None = None
    origin: dict[str, Any] | None = None
    knows: Callable[[np.ndarray], np.ndarray] | None = None
    service: Service | None = None

    @property
    def name(self) -> str:
        """Returns the spec of the network behind the answers, or the address of other victims."""
        return self.encoder.spec if self.encoder else self.address

    @property
    def applied(self) -> tuple[Callable[[Any, jax.Array], jax.Array], Any] | None:
        """Returns `(apply, variables)` of a JAX function; None of other victims."""
        if self.encoder:
            return self.encoder.network.apply, self.encoder.variables
        return (_call, self.answer) if self.traced else None


def from_encoder(encoder: Encoder, address: str = '') -> Victim:
    """Makes a victim that answers with an encoder's representations.

    Args:
        encoder: a trained encoder.
        address: of the encoder's stage; '' is the hash of the parameters.
    """
    answer = jax.tree_util.Partial(encoder.network.apply, encoder.variables)
    where = address or content_hash(encoder)
    shape = encoder.input_shape
    return Victim(where, encoder.dim, answer, True, input_shape=shape, encoder=encoder)


def from_flax(
    apply: Callable[[Any, jax.Array], jax.Array],
    variables: Any,
    *,
    input_shape: tuple[int, ...],
    answers: str = 'representation',
) -> Victim:
    """Makes a victim of a pure JAX function and variables, of Flax or not.

    >>> victim = from_flax(lambda v, x: x @ v, jnp.ones((3, 2)), input_shape=(3,))
    >>> victim.dim, victim.traced
    (2, True)

    Args:
        apply: `(variables, inputs float32 [B, ...]) -> [B, D]`, row by row.
        variables: a pytree of arrays.
        input_shape: of one input.
        answers: the kind of an answer; see `Victim`.

    Raises:
        UserError: the outputs are not [B, D], or the variables are not finite.
    """
    if not is_finite(variables):
        raise UserError('victim: its variables hold NaN, infinity or numbers above 1e19')
    inputs = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
    outputs = jax.eval_shape(apply, variables, inputs)
    if len(outputs.shape) != 2 or outputs.shape[0] != 2:
        raise UserError(
            f'victim: its outputs for 2 inputs have shape {list(outputs.shape)}; apply must give '
            '[B, D], one row for each input'
        )
    answer = jax.tree_util.Partial(apply, variables)
    where = content_of((apply, variables))
    return Victim(where, outputs.shape[1], answer, True, answers, tuple(input_shape))


def from_function(
    fn: Callable[[np.ndarray], np.ndarray],
    *,
    dim: int,
    address: str = '',
    input_shape: tuple[int, ...] | None = None,
    answers: str = 'representation',
) -> Victim:
    """Makes a victim of any function on NumPy arrays: a scikit-learn model, a service, a table.

    >>> victim = from_function(lambda x: x[:, :2], dim=2, address='first two')
    >>> victim.address, victim.traced
    ('first two', False)

    Args:
        fn: `inputs [n, ...] -> outputs [n, dim]`; called with granted rows only, never twice for
            one paid query.
        dim: width of its answers.
        address: the name that stands for this function and its weights wherever answers are kept;
            '' is the function's module and name, and the content of what these do not tell: of a
            lambda, of a function within another, of a method's object, of bound arguments. Another
            model behind the same function needs another name.
        input_shape: of one input; None takes any.
        answers: the kind of an answer; see `Victim`.

    Raises:
        UserError: `fn` cannot be called, `dim` is not a whole number of at least 1, `input_shape`
            holds other numbers, or `address` is no text.
    """
    if not callable(fn):
        raise UserError(f'victim: {fn!r} cannot be called: give a function of an array')
    check_whole('dim', dim, 1)
    check('address', address, str)
    check('input_shape', input_shape, tuple[Count, ...] | None)
    shape = None if input_shape is None else tuple(input_shape)
    return Victim(address or _name_of(fn), dim, fn, False, answers, shape)


def _call(answer: Callable[[Any], Any], inputs: jax.Array) -> jax.Array:
    return answer(inputs)


def _name_of(fn: Callable) -> str:
    unnamed = not isinstance(fn, types.FunctionType) or '<' in fn.__qualname__  # <lambda>, <locals>
    return f'{name_of(fn)} {content_of(fn)}' if unnamed else name_of(fn)
