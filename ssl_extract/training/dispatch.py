"""Several steps of a training as one program, sent at once.

An accelerator that finishes a step before the host has sent the next waits for it; one program of
several steps leaves it nothing to wait for. On a CPU, XLA's convolution within a loop is several
times slower, and refused; oneDNN's is not.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.errors import UserError


class Cuts(NamedTuple):
    """How the steps of a training are cut into programs.

    >>> cuts = Cuts(stop=11, most=4, every=(5, 100))
    >>> cuts.firsts(2), cuts.steps(2)
    ([2, 5, 9, 10], range(2, 5))

    Attributes:
        stop: steps of the whole training.
        most: steps of a program.
        every: no program goes beyond a multiple of any of these.
    """

    stop: int
    most: int
    every: tuple[int, ...]

    def firsts(self, start: int) -> Sequence[int]:
        """Returns the first step of each program, from the step `start` on."""
        if self.most == 1:
            return range(start, self.stop)
        firsts = []
        while start < self.stop:
            firsts.append(start)
            start = self.steps(start).stop
        return firsts

    def steps(self, first: int) -> range:
        """Returns the steps of the program that begins with the step `first`."""
        ends = [first - first % n + n for n in self.every]
        return range(first, min(first + self.most, self.stop, *ends))

    def rows(self, of_step: Callable[[int], np.ndarray], first: int) -> np.ndarray:
        """Returns the rows of the batches of the program that begins with the step `first`.

        Args:
            of_step: a step to the rows of its batch, int [B].
            first: a step.

        Returns:
            int [B] where `most` is 1, else int [most, B]; where the program has fewer steps, its
            last batch stands in for those that are missing.
        """
        if self.most == 1:
            return of_step(first)
        rows = [of_step(step) for step in self.steps(first)]
        return np.stack(rows + rows[-1:] * (self.most - len(rows)))


def steps_of(step: Callable, platform: str) -> Callable:
    """Makes `steps(state, batches, oracle, learning_rate, num_steps, count) -> (state, *results)`.

    One program serves every `count`, so that what is left before a checkpoint needs no other.

    Args:
        step: of one batch; see `loop.step_of`.
        platform: of the devices, such as 'cpu'.

    Returns:
        `steps`, which takes the first `count` of the K batches, a pytree of [K, B, ...]. The
        results are those of `step`, stacked [K, ...], and zeros behind the first `count`.

    Raises:
        UserError: when it is traced: see `check_loop`.
    """

    def steps(state: Any, batches: Any, *shared: Any) -> tuple[Any, ...]:
        *given, count = shared

        def take(state: Any, number: jax.typing.ArrayLike) -> tuple[Any, ...]:
            return step(state, jax.tree.map(lambda x: x[number], batches), *given)

        def body(number: jax.Array, carried: tuple[Any, Any]) -> tuple[Any, Any]:
            state, kept = carried
            state, *results = take(state, number)
            return state, jax.tree.map(lambda all, new: all.at[number].set(new), kept, results)

        jaxpr, (_, *shapes) = jax.make_jaxpr(take, return_shape=True)(state, 0)
        check_loop(jaxpr, platform)
        most = len(jax.tree.leaves(batches)[0])
        kept = jax.tree.map(lambda x: jnp.zeros((most, *x.shape), x.dtype), shapes)
        state, kept = jax.lax.fori_loop(0, count, body, (state, kept))
        return state, *kept

    return steps


def check_loop(jaxpr: Any, platform: str) -> None:
    """Checks that a step may stand in a compiled loop.

    Args:
        jaxpr: of the step.
        platform: of the devices, such as 'cpu'.

    Raises:
        UserError: the step has a convolution of XLA's, and the devices are a CPU.
    """
    if platform == 'cpu' and 'conv_general_dilated[' in str(jaxpr):
        raise UserError(
            'training.steps_per_dispatch: on a CPU a convolution of bfloat16, or for several '
            'devices, is much slower within a program of several steps; write 1'
        )
