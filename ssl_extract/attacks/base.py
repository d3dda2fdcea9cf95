"""The `Attack` type, its registry and its building blocks.

    @attacks.register('my_attack', plan='views(2)', loss='infonce', query_augmentation='simclr')
    def my_attack(student, plan, loss, student_augmentation) -> Attack: ...

The traits of an attack are the kind of the oracle's answers (`endpoint`), whether the attack acts
against a defense (`adaptive`), whether the trained network is a classifier (`classifies`), and the
authors' settings of the fields of `attack`. An experiment that leaves `plan`, `loss` or an
augmentation empty takes the authors' setting; `experiments/paper.py:NAME` takes all settings.

A factory gets the following arguments where it has parameters for them. All other parameters are
set in `attack.name`, as in `'my_attack(weight=2.0)'`:

- `student`: the surrogate as wide as the answers (`Student`);
- `encoder`, `answer_dim`: the surrogate's network and the width of the answers, to build another
  student;
- `plan`: the queries (`attacks.plans`);
- `loss`: `(student [B, D], teacher [B, D], *, labels, where) -> f32[]`;
- `student_augmentation`: `(key, input) -> view`, for the surrogate's views of an input;
- `accounts`: the number of accounts whose answers lie in spaces of their own; else 1.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_extract import encoders
from ssl_extract.encoders import chain
from ssl_extract.ranges import Range
from ssl_extract.registry import Registry
from ssl_extract.training import Recipe

# The authors' settings, fields of `attack`; None where the authors name no setting.
_PRESET = dict(
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
# endpoint: of the oracle's answers (`ssl_extract.victims.endpoints`).
# adaptive: whether the attack acts against a defense.
# classifies: whether the surrogate with all its heads is a classifier of the victim's classes.
# per_account: whether the attack learns from several accounts whose answers no map brings together.
# least_batch: the least number of inputs in a batch that teach anything, whatever the loss.
ATTACKS = Registry(
    'attack',
    endpoint='representation',
    adaptive=False,
    classifies=False,
    per_account=False,
    least_batch=1,
    **_PRESET,
)
register = ATTACKS.register
Views = Annotated[int, Range(1, 100)]  # of an input in a step, one after the other
# The fields for which '' in a config means the authors' setting.
OWN = ('plan', 'loss', 'query_augmentation', 'student_augmentation')


class Attack(NamedTuple):
    """The training of a surrogate on answers.

    Attributes:
        recipe: of the surrogate; the variables hold one network named 'encoder'.
        asks: number of views of each input in a step.
        before: a recipe that is trained first, on the same answers; the trained networks are part
            of the statistics of `recipe`, by name.
        before_epochs: length of the first training, as a multiple of the surrogate's epochs.
        before_learning_rate: of the first training; None is the surrogate's.
    """

    recipe: Recipe
    asks: int = 1
    before: Recipe | None = None
    before_epochs: float = 1.0
    before_learning_rate: float | None = None


class Student(NamedTuple):
    """The surrogate in training: the encoder, and the network between encoder and answers.

    Attributes:
        init: `(key, inputs [1, ...]) -> variables`.
        train: `(params, batch_stats, inputs [B, ...]) -> (outputs [B, D], batch_stats)`.
        heads: for `Recipe.heads`.
    """

    init: Callable[..., Any]
    train: Callable[..., Any]
    heads: tuple[tuple[str, str], ...]


def endpoint_of(spec: str) -> str:
    """Returns the endpoint of the oracle's answers under an attack.

    Raises:
        UserError: the attack is unknown.
    """
    return ATTACKS.traits(spec).endpoint


def preset(spec: str) -> dict[str, Any]:
    """Returns the settings of the authors of an attack, by the field of `attack`.

    >>> from ssl_extract import attacks
    >>> attacks.preset('rda')['budget']
    25000

    Raises:
        UserError: the attack is unknown.
    """
    traits = ATTACKS.traits(spec)._asdict()
    return {field: traits[field] for field in _PRESET if traits[field] is not None}


def own_settings(spec: str) -> dict[str, str]:
    """Returns an attack's default plan, loss and augmentations, by the field of `attack`.

    Raises:
        UserError: the attack is unknown.
    """
    settings = preset(spec)
    return {field: settings.get(field, 'none') for field in OWN}


def make_student(
    encoder: encoders.Network, answer_dim: int, head: tuple[str, str] | None = None
) -> Student:
    """Makes a student whose outputs are `answer_dim` wide.

    Args:
        encoder: the surrogate's network.
        answer_dim: D, the width of the oracle's answers.
        head: name and spec of the network between encoder and answers. None is a linear 'adapter'
            where the representation has another width than the answers, else no network.
    """
    name, spec = head or ('adapter', f'linear(dim={answer_dim})')
    networks = {'encoder': encoder, name: encoders.make_head(spec)}

    def init(key, inputs):
        fits = head is None and encoders.dim(encoder, inputs.shape[1:]) == answer_dim
        return chain.init({'encoder': encoder} if fits else networks, key, inputs)

    def train(params, batch_stats, inputs):
        used = {name: network for name, network in networks.items() if name in params}
        outputs, batch_stats = chain.train(used, params, batch_stats, inputs)
        return outputs[list(used)[-1]], batch_stats

    return Student(init, train, ((name, spec),))


def objective(student: Student, loss: Callable, weights: Sequence[float] = (1.0,)) -> Callable:
    """Makes a `Recipe.objective`: the weighted sum of the losses of views against the answer.

    The batch holds `inputs` [K * B, ...] (K views, as of `stacked`), `answers` [B, D], `where`
    bool[B] and, if the attacker has labels, `labels` [B]. With `account` int32[B] the student's
    outputs are [K * B, accounts * D], and each row is compared in the space of its account.

    Args:
        student: see `Student`.
        loss: see `ssl_extract.losses.Loss`.
        weights: of the K views.
    """

    def apply(params, batch_stats, batch):
        outputs, batch_stats = student.train(params, batch_stats, batch['inputs'])
        if 'account' in batch:
            outputs = own_outputs(outputs, batch['account'], batch['answers'].shape[-1])
        labels, where = batch.get('labels'), batch['where']
        values = [
            weight * loss(view, batch['answers'], labels=labels, where=where)
            for weight, view in zip(weights, jnp.split(outputs, len(weights)), strict=True)
        ]
        return sum(values), (batch_stats, {})

    return apply


def own_outputs(outputs: jax.Array, account: jax.Array, width: int) -> jax.Array:
    """Selects the outputs of each row's account.

    >>> own_outputs(jnp.array([[1, 2, 3, 4], [5, 6, 7, 8]]), jnp.array([1, 0]), 2).tolist()
    [[3, 4], [5, 6]]

    Args:
        outputs: [K * B, accounts * D], of K views as of `stacked`.
        account: int32[B].
        width: D, of an answer.

    Returns:
        [K * B, D].
    """
    apart = outputs.reshape(len(outputs), -1, width)
    account = jnp.tile(account, len(outputs) // len(account))
    return jnp.take_along_axis(apart, account[:, None, None], axis=1)[:, 0]


def make(
    spec: str, *, encoder: encoders.Network, answer_dim: int, accounts: int = 1, **parts: Any
) -> Attack:
    """Makes the attack that `spec` names.

    Args:
        spec: such as `'direct'` or `'rda(views=5)'`.
        encoder: the surrogate's network.
        answer_dim: the width of the answers.
        accounts: number of accounts whose answers lie in spaces of their own.
        **parts: `plan`, `loss`, `student_augmentation`.

    Raises:
        UserError: the name or an argument is wrong, or the choices do not go together.
    """
    student = make_student(encoder, answer_dim)
    parts |= {'student': student, 'accounts': accounts}
    return ATTACKS.make(spec, encoder=encoder, answer_dim=answer_dim, **parts)


def stacked(views: jax.Array) -> jax.Array:
    """Stacks [K, B, ...] to one batch [K * B, ...]: the views of an input lie B rows apart."""
    return views.reshape((-1, *views.shape[2:]))
