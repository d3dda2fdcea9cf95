"""Prediction poisoning: answers that turn an attacker's gradient around.

Orekondy et al., "Prediction Poisoning" (https://arxiv.org/abs/1906.10908) for classifiers; Mazeika
et al., "How to Steer Your Adversary" (https://arxiv.org/abs/2206.14157) for the closed form; the
form for representations: https://arxiv.org/abs/2205.07890, sections 5.2 and E.1.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract.defenses.base import Defense, EmptyState, register
from ssl_extract.errors import UserError
from ssl_extract.numerics import lengths, normalize
from ssl_extract.ranges import NotNegative, Whole

GRADIENT_BYTES = 2**30  # of the gradients, one a query, in memory at a time


# Hashed by identity, since `defenses.make` caches by arguments.
@dataclasses.dataclass(frozen=True, eq=False)
class Shadow:
    """The owner's guess of a surrogate, which the owner trained on the victim's answers.

    Attributes:
        apply: `(variables, inputs [B, ...]) -> representations [B, D]`, row by row.
        variables: a dict with 'params', the part that an attacker would train.
    """

    apply: Callable[[Any, jax.Array], jax.Array]
    variables: dict[str, Any]


@register(
    'prediction_poisoning',
    needs=('shadow',),
    shadow_epochs=lambda epochs, **_: epochs,
    moves_answers=True,
    not_after=(
        *('orthogonal', 'affine', 'pad_shuffle', 'binarize', 'normalize', 'top_k', 'replace'),
        'prediction_poisoning',
    ),
    because="its model of an attacker was trained on the victim's own representations",
    endpoints=('representation',),
)
def prediction_poisoning(
    radius: NotNegative = 1.0, epochs: Whole = 10, shadow: Shadow | None = None
) -> Defense:
    """Moves an answer y [D] by `radius * ||y||` to turn a shadow's gradient around the most.

    For the input of a query let F [D] be the output of the shadow, and J [D, P] the Jacobian of F
    with respect to the shadow's parameters. The shadow's gradients of the squared error are

        a = 2 J^T (F - y)  with the true answer,    b = 2 J^T (F - y~)  with the poisoned one.

    `<a, b> = ||a||^2 - 2 <J a, y~ - y>` is linear in y~. Over the ball `||y~ - y|| <= r` the least
    value, `||a||^2 - 2 r ||J a||`, is at

        y~ = y + r J a / ||J a||,    r = radius * ||y||.

    This is the redirection of arXiv 2206.14157 towards -a, with a ball in place of the simplex.
    Section E.1 of arXiv 2205.07890 writes the cosine of a and b instead, which has no closed form,
    and preserves the use of the answers by a second surrogate, of a legitimate user's classifier,
    whose task and labels the owner does not know. Here the ball bounds the loss of any user. The
    answer to an input is always the same, and unchanged where `J a = 0`.

    J J^T has few strong eigenvectors, so that the answers are pushed along few directions. Of a
    small CIFAR-10 victim one direction has 58 % of the energy, which an attacker projects out
    (`recovery.project_out`).

    A query costs a forward pass and about three backward passes, and the memory of a gradient of
    all parameters for each query of a batch; from 1 GiB on the queries take turns.

    >>> from ssl_extract import defenses
    >>> shadow = Shadow(lambda variables, x: x @ variables['params'], {'params': np.eye(2)})
    >>> defense = prediction_poisoning(radius=0.5, shadow=shadow)
    >>> jnp.round(defenses.apply_once(defense, [[1.0, 0.0]], [[0.0, 1.0]])[0], 3)
    Array([[0.646, 0.354]], dtype=float32)

    Args:
        radius: of the ball, relative to the norm of the answer.
        epochs: for which the owner trains the shadow. With 0 the shadow is untrained, as an
            attacker is at the start, when the gradients are largest.
        shadow: an argument of `defenses.make` from the victim's owner; without a shadow the defense
            can be built but not used.

    Raises:
        UserError: an argument is of a wrong type, or `radius` is negative; in `init`, there is no
            shadow, or it answers with another width.
    """
    if not isinstance(shadow, Shadow | None):
        raise UserError(
            f"shadow must be a defenses.poisoning.Shadow from the victim's owner, got {shadow!r}"
        )

    def init(key, outputs, inputs):
        if shadow is None:
            raise UserError(
                'prediction_poisoning has no shadow: write defenses.make(spec, shadow='
                "Shadow(apply, variables)) with a surrogate trained on the victim's answers"
            )
        width = jax.eval_shape(shadow.apply, shadow.variables, inputs).shape[-1]
        if width != outputs.shape[-1]:
            raise UserError(
                f'prediction_poisoning: the shadow answers with {width} numbers and the victim '
                f'with {outputs.shape[-1]}; train one of the same width'
            )
        return EmptyState()

    def apply(outputs, state, *, inputs, where, keys):
        pushed = _directions(shadow, jax.lax.stop_gradient(inputs), outputs)
        return outputs + radius * lengths(outputs) * normalize(pushed), where, state

    return Defense(init, apply)


def _directions(shadow: Shadow, inputs: jax.Array, answers: jax.Array) -> jax.Array:
    """Computes `J a / 2`, [B, D]: the gradient of `||J^T e||^2 / 2` by e, at `e = F - y`.

    The form is a gradient because a convolution may have no forward mode (`encoders.conv`).
    """
    variables = jax.tree.map(np.asarray, shadow.variables)  # of no device, to go with any mesh

    def direction(query):
        x, answer = query

        def predict(params):
            return shadow.apply({**variables, 'params': params}, x[None])[0]

        predicted, pull = jax.vjp(predict, variables['params'])

        def half_squared_norm(error):
            return sum(jnp.vdot(g, g) for g in jax.tree.leaves(pull(error))) / 2

        return jax.grad(half_squared_norm)(predicted - answer)

    size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables['params']))
    rows = max(GRADIENT_BYTES // size, 1)
    if rows >= len(inputs):
        return jax.vmap(direction)((inputs, answers))
    return jax.lax.map(direction, (inputs, answers), batch_size=rows)
