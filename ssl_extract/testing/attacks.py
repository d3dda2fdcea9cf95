"""The contract of an attack, tried on one step with small random images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import attacks, augment, encoders, losses, training
from ssl_extract.attacks import Attack
from ssl_extract.contract import Contract, require
from ssl_extract.encoders import Network, chain
from ssl_extract.oracle import make_oracle

_BATCH, _SHAPE, _DIM = 8, (8, 8, 3), 4


def check_attack(
    attack: Attack | str,
    *,
    plan: str = '',
    loss: losses.Loss | str = '',
    query_augmentation: str = 'none',
    student_augmentation: str = 'none',
) -> None:
    """Tries the contract of `attacks.Attack`, and prints each clause that holds.

    The surrogate is a linear map of images [8, 8, 3] to 4 features; answers are 4 probabilities.

    Args:
        attack: the attack to try, or its spec; an `Attack` must be made for answers of width 4 and
            a network that takes such images.
        plan: the query plan; '' is the plan of the spec, and 'once' of an `Attack`.
        loss: the loss of a spec's attack; '' is the default of the spec.
        query_augmentation, student_augmentation: the specs of the augmentations.

    Raises:
        UserError: names the first clause that the attack breaks.
    """
    settings = attacks.own_settings(attack) if isinstance(attack, str) else {'plan': 'once'}
    asks = attacks.PLANS.make(
        plan or settings['plan'], query_augmentation=augment.make(query_augmentation)
    )
    if isinstance(attack, str):
        attack = attacks.make(
            attack,
            encoder=linear_network(),
            answer_dim=_DIM,
            plan=asks,
            loss=loss if callable(loss) else losses.make(loss or settings['loss']),
            student_augmentation=augment.make(student_augmentation),
        )
    contract, frozen = Contract('the attack'), {}
    if attack.before is not None:
        frozen = _check_recipe(contract, attack, attack.before, asks.stored, {}, 'first phase, ')
    _check_recipe(contract, attack, attack.recipe, asks.stored, frozen)


def linear_network() -> Network:
    """Makes a linear map of images [8, 8, 3] to 4 features, which compiles in no time."""

    def init(key: jax.Array, inputs: Any) -> dict[str, Any]:
        matrix = jax.random.normal(key, (int(np.prod(inputs.shape[1:])), _DIM)) / 8
        return {'params': {'matrix': matrix}, 'batch_stats': {}}

    def apply(variables: dict[str, Any], inputs: jax.Array) -> jax.Array:
        return inputs.reshape(len(inputs), -1) @ variables['params']['matrix']

    return Network(init, apply, lambda variables, inputs: (apply(variables, inputs), {}))


def _check_recipe(
    contract: Contract,
    attack: Attack,
    recipe: training.Recipe,
    stored: int,
    frozen: dict[str, Any],
    phase: str = '',
) -> dict[str, Any]:
    """Tries one recipe and returns its networks, which are statistics of the next recipe."""
    with contract.clause(f'{phase}init gives params and batch_stats, by the name of the network'):
        variables = recipe.init(jax.random.key(0), jnp.zeros((1, *_SHAPE)))
        require(set(variables) == {'params', 'batch_stats'}, f'it gives {sorted(variables)}')
        require(phase or 'encoder' in variables['params'], "there is no 'encoder'")
    with contract.clause(f'{phase}heads are heads that are registered'):
        for _, spec in recipe.heads:
            encoders.make_head(spec)
    statistics, batch = variables['batch_stats'] | frozen, _batch(max(stored, 1))
    step = _step_of(recipe, statistics)
    wanted = [] if stored else [(_BATCH * attack.asks, *_SHAPE)]
    clause = 'nothing, for its plan stores answers' if stored else 'its views of each input, once'
    with contract.clause(f'{phase}a step asks {clause}'):
        sent: list[tuple[int, ...]] = []
        jax.eval_shape(lambda batch: _prepare(recipe, batch, sent), batch)
        require(sent == wanted, f'it asked {sent}, not {wanted}')
    with contract.clause(f'{phase}the loss is a finite float32 []'):
        (value, stats), grads = step(variables['params'], batch)
        shown = f'it is {value.dtype}{list(value.shape)}'
        require(value.shape == () and value.dtype == jnp.float32, shown)
        require(np.isfinite(value), f'it is {value}')
    with contract.clause(f'{phase}statistics keep their shapes and types'):
        require(jax.tree.map(jax.typeof, stats) == jax.tree.map(jax.typeof, statistics))
    with contract.clause(f'{phase}the gradient is finite, and moves what is trained'):
        leaves = jax.tree.leaves(grads if phase else grads['encoder'])
        require(all(np.all(np.isfinite(leaf)) for leaf in leaves), 'it is not finite')
        require(any(np.any(leaf) for leaf in leaves), 'it is zero')
    if stored:
        with contract.clause(f'{phase}what stands for an answer that was refused does not count'):
            _check_refused(step, variables['params'], batch)
    return {name: chain.part(variables, name) for name in variables['params']}


def _prepare(recipe: training.Recipe, batch: Any, sent: list[tuple[int, ...]]) -> Any:
    """Returns the batch of a recipe, and notes the shapes of the queries in `sent`."""
    matrix = np.random.default_rng(1).normal(size=(int(np.prod(_SHAPE)), _DIM))
    oracle = make_oracle(
        lambda images: jax.nn.softmax(images.reshape(len(images), -1) @ jnp.float32(matrix)),
        budget=10_000,
    )

    def ask(queries: jax.Array, account: Any) -> Any:
        sent.append(queries.shape)
        return oracle.query(queries, account)

    account = oracle.init(jax.random.key(2), jnp.zeros((1, *_SHAPE)))
    return recipe.prepare(batch, jax.random.key(3), ask, account)[0]


def _step_of(recipe: training.Recipe, statistics: Any) -> Callable:
    """Returns `(params, batch) -> ((loss, statistics), gradient)`."""

    def loss(params: Any, batch: dict[str, jax.Array]) -> Any:
        value, (stats, _) = recipe.objective(params, statistics, _prepare(recipe, batch, []))
        return value, (value, stats)

    def step(params: Any, batch: dict[str, jax.Array]) -> Any:
        grads, aux = jax.grad(loss, has_aux=True)(params, batch)
        return aux, grads

    return jax.jit(step)


def _batch(stored: int) -> dict[str, np.ndarray]:
    """Makes random images with their answers; every third image has none."""
    rng = np.random.default_rng(0)
    answered = np.repeat(np.arange(_BATCH) % 3 != 1, stored).reshape(_BATCH, stored)
    return {
        'inputs': rng.uniform(size=(_BATCH, *_SHAPE)).astype(np.float32),
        'labels': np.arange(_BATCH, dtype=np.int32) % 3,
        'answers': rng.dirichlet(np.ones(_DIM), (_BATCH, stored)).astype(np.float32),
        'answered': answered,
        'view_seeds': np.arange(_BATCH * stored, dtype=np.uint32).reshape(_BATCH, stored),
    }


def _check_refused(step: Callable, params: Any, batch: dict[str, np.ndarray]) -> None:
    (expected, _), expected_grads = step(params, batch)
    for garbage in (0.0, 7.0):
        answers = np.where(batch['answered'][..., None], batch['answers'], np.float32(garbage))
        (value, _), grads = step(params, batch | {'answers': answers})
        require(np.isclose(value, expected, rtol=1e-4), f'the loss is {value}, not {expected}')
        pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True)
        require(all(np.allclose(a, b, atol=1e-4) for a, b in pairs), 'another gradient')
