"""The `Attack` type, its registry and its building blocks.

    @attacks.register('mine', plan='views(2)', loss='infonce', query_augmentation='simclr')
    def mine(student, plan, loss, student_augmentation) -> Attack: ...

Its traits are what the oracle answers with (`endpoint`), whether it acts against a defense
(`adaptive`) and its authors' settings of the fields of `attack`: an experiment that leaves `plan`,
`loss` or an augmentation empty takes the attack's own, `experiments/paper.py:NAME` takes all.

A factory gets whichever of these it has parameters for; everything else is its own argument, set in
`attack.name`, as in `'mine(weight=2.0)'`:

- `student`: the surrogate as wide as the answers (`Student`);
- `encoder`, `answer_dim`: its network and the width of the answers, to build another student;
- `plan`: how it asks (`attacks.plans`);
- `loss`: `(student [B, D], teacher [B, D], *, labels, where) -> f32[]`;
- `student_augmentation`: `(key, image) -> image`, what the surrogate sees of an image.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract import encoders
from ssl_extract.encoders import chain
from ssl_extract.registry import Registry
from ssl_extract.training import Recipe

_PRESET = dict(  # its authors' settings, fields of `attack`; None: they name none
    plan='once',
    loss='mse',
    query_augmentation=None,
    student_augmentation=None,
    strategy=None,
    recover=None,
    accounts=None,
    budget=None,
    epochs=None,
    batch_size=None,
    optimizer=None,
    schedule=None,
    learning_rate=None,
)
# endpoint: what the oracle is to answer with (`ssl_extract.victims.endpoints`); adaptive: whether
# the attack acts against a defense.
ATTACKS = Registry('attack', endpoint='representation', adaptive=False, **_PRESET)
register = ATTACKS.register
OWN = ('plan', 'loss', 'query_augmentation', 'student_augmentation')  # '' in a config: the preset's


class Attack(NamedTuple):
    """How a surrogate is trained on answers.

    Attributes:
        recipe: of the surrogate; its variables hold one network named 'encoder'.
        asks: how many views of each image a step works with.
        before: a recipe that is trained first, on the same answers; what it trained is given to
            `recipe` among its statistics, by name.
        before_epochs: how long, as a multiple of the surrogate's epochs.
    """

    recipe: Recipe
    asks: int = 1
    before: Recipe | None = None
    before_epochs: float = 1.0


class Student(NamedTuple):
    """The surrogate while it trains: its encoder, and behind it what makes it fit the answers.

    Attributes:
        init: `(key, images [1, H, W, 3]) -> variables`.
        train: `(params, batch_stats, images [B, H, W, 3]) -> (outputs [B, D], batch_stats)`.
        heads: for `Recipe.heads`.
    """

    init: Callable[..., Any]
    train: Callable[..., Any]
    heads: tuple[tuple[str, str], ...]


def endpoint_of(spec: str) -> str:
    """Returns what the oracle answers with under an attack.

    Raises:
        UserError: there is no such attack.
    """
    return ATTACKS.traits(spec).endpoint


def preset(spec: str) -> dict[str, Any]:
    """Returns the settings of the authors of an attack, by the field of `attack`.

    >>> from ssl_extract import attacks
    >>> attacks.preset('rda')['budget']
    25000

    Raises:
        UserError: there is no such attack.
    """
    traits = ATTACKS.traits(spec)._asdict()
    return {field: traits[field] for field in _PRESET if traits[field] is not None}


def own_settings(spec: str) -> dict[str, str]:
    """What an attack does where a config leaves it open: its plan, loss and augmentations.

    Raises:
        UserError: there is no such attack.
    """
    settings = preset(spec)
    return {field: settings.get(field, 'none') for field in OWN}


def make_student(
    encoder: encoders.Network, answer_dim: int, head: tuple[str, str] | None = None
) -> Student:
    """A student whose outputs are `answer_dim` wide.

    Args:
        encoder: what is stolen.
        answer_dim: D, the width of the oracle's answers.
        head: name and spec of the network between encoder and answers. None is a linear 'adapter',
            and only where the representation has another width than the answers.
    """
    name, spec = head or ('adapter', f'linear(dim={answer_dim})')
    networks = {'encoder': encoder, name: encoders.make_head(spec)}

    def init(key, images):
        fits = head is None and encoders.dim(encoder, images.shape[1:]) == answer_dim
        return chain.init({'encoder': encoder} if fits else networks, key, images)

    def train(params, batch_stats, images):
        used = {name: network for name, network in networks.items() if name in params}
        outputs, batch_stats = chain.train(used, params, batch_stats, images)
        return outputs[list(used)[-1]], batch_stats

    return Student(init, train, ((name, spec),))


def objective(student: Student, loss: Callable, weights: Sequence[float] = (1.0,)) -> Callable:
    """For `Recipe.objective`: the weighted sum of the loss of each view against the answer.

    The batch holds `images` [K * B, ...] (K views, as `stacked` lays them), `answers` [B, D],
    `where` bool[B] and, if the attacker has them, `labels` [B].

    Args:
        weights: of the K views.
    """

    def apply(params, batch_stats, batch):
        outputs, batch_stats = student.train(params, batch_stats, batch['inputs'])
        labels, where = batch.get('labels'), batch['where']
        values = [
            weight * loss(view, batch['answers'], labels=labels, where=where)
            for weight, view in zip(weights, jnp.split(outputs, len(weights)), strict=True)
        ]
        return sum(values), (batch_stats, {})

    return apply


def make(spec: str, *, encoder: encoders.Network, answer_dim: int, **given: Any) -> Attack:
    """Builds the attack that `spec` names.

    Args:
        spec: such as `'direct'` or `'rda(views=5)'`.
        encoder: the surrogate's network.
        answer_dim: the width of the answers.
        **given: `plan`, `loss`, `student_augmentation`.

    Raises:
        UserError: the name or an argument is wrong, or the choices do not go together.
    """
    student = make_student(encoder, answer_dim)
    return ATTACKS.make(spec, encoder=encoder, answer_dim=answer_dim, student=student, **given)


def stacked(images: jax.Array) -> jax.Array:
    """[K, B, ...] as one batch [K * B, ...]: the views of an image lie B rows apart."""
    return images.reshape((-1, *images.shape[2:]))
