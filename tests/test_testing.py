"""The public contracts: each clause has an implementation here that breaks it alone."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import attacks, defenses, losses, testing
from ssl_extract.defenses import Defense, stateless
from ssl_extract.errors import UserError
from ssl_extract.strategies import STRATEGIES, Strategy
from ssl_extract.strategies.base import left
from ssl_extract.testing.attacks import linear_network
from ssl_extract.training import Recipe

pytestmark = pytest.mark.devices

LINEAR = linear_network()
WITH_LAYER = LINEAR._replace(layers=lambda variables, x: (LINEAR.apply(variables, x),))
GOOD = {  # a good implementation, and the name of what is checked
    'loss': (testing.check_loss, 'mse'),
    'defense': (testing.check_defense, 'gaussian_noise | round'),
    'query strategy': (testing.check_strategy, 'kcenter(rounds=2)'),
    'encoder': (testing.check_encoder, WITH_LAYER),
    'attack': (testing.check_attack, 'direct'),
}


def traced(x):
    return isinstance(x, jax.core.Tracer)


def on_one_device(x):
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.lax.with_sharding_constraint(x, where)


# Losses


def ignores_where(student, teacher, *, labels=None, where=None):
    return jnp.mean(jnp.square(student - teacher), dtype=jnp.float32)


def squares(student, teacher, where):
    student, teacher, where = losses.prepare(student, teacher, where)
    return losses.masked_mean(jnp.sum(jnp.square(student - teacher), axis=-1), where)


def gradient_of(wrong):
    """The squares, with a gradient that `wrong` changes: `(grad [B, D], where [B]) -> grad`."""

    def loss(student, teacher, *, labels=None, where=None):
        where = jnp.ones(len(student), bool) if where is None else where

        @jax.custom_vjp
        def value(student):
            return squares(student, teacher, where)

        def forward(student):
            return value(student), jax.grad(lambda s: squares(s, teacher, where))(student)

        value.defvjp(forward, lambda grad, g: (wrong(grad, where) * g,))
        return value(jnp.asarray(student, jnp.float32))

    return loss


def keeps_a_constant(student, teacher, *, labels=None, where=None):
    return squares(student, teacher, where) + jnp.where(jnp.all(~where), 1.0, 0.0)


def in_bfloat16(student, teacher, *, labels=None, where=None):
    return squares(student, teacher, where).astype(student.dtype)


LOSSES = {
    'of float32 it makes float32 []': lambda s, t, *, labels=None, where=None: s[:, 0],
    'of bfloat16 it makes float32 []': in_bfloat16,
    'its value is finite': lambda s, t, *, labels=None, where=None: squares(s, t, where) / 0.0,
    'its gradient is finite': gradient_of(lambda grad, where: grad * jnp.inf),
    'its value is that of the rows left in': ignores_where,
    'its gradient is that of the rows left in': gradient_of(
        lambda grad, where: jnp.where(jnp.all(where), grad, 2 * grad)
    ),
    'the gradient of the rows left out is zero': gradient_of(
        lambda grad, where: jnp.where(where[:, None], grad, 1.0)
    ),
    'with no row left in, value and gradient are zero': lambda s, t, *, labels=None, where=None: (
        squares(s, t, where) + (0.0 if where is None else jnp.where(jnp.any(where), 0.0, 1.0))
    ),
    'where student and teacher are equal, its gradient is finite': gradient_of(
        lambda grad, where: jnp.where(jnp.any(where) & jnp.all(grad == 0), jnp.nan, grad)
    ),
}


# Defenses


def with_state(init, apply):
    """`apply(outputs, state, inputs, where) -> (outputs, where, state)`."""
    return Defense(
        lambda key, outputs, inputs: init(),
        lambda outputs, state, *, inputs, where, keys: apply(outputs, state, inputs, where),
    )


def zero():
    return jnp.zeros([])


def count_rows(outputs, state, inputs, where):
    return outputs, where, state + len(where)


def remember_the_largest(outputs, state, inputs, where):
    return outputs, where, jnp.maximum(state, inputs.max())


def in_bits(outputs, state, inputs, where):
    return outputs, where, state + jnp.sum(where).astype(jnp.bfloat16)


def on_the_host(outputs, keys):
    return jax.pure_callback(np.abs, jax.typeof(outputs), outputs)


DEFENSES = {
    'init gives the same state of shapes as of arrays': Defense(
        lambda key, outputs, inputs: jnp.sum(jnp.asarray(outputs)),
        lambda outputs, state, *, inputs, where, keys: (outputs, where, state),
    ),
    'apply gives float [B, E], bool [B], and a state of unchanged types': with_state(
        zero, lambda outputs, state, inputs, where: (outputs, where, state.astype(int))
    ),
    'apply answers no query that was not to be answered': with_state(
        zero, lambda outputs, state, inputs, where: (outputs, jnp.ones_like(where), state)
    ),
    'apply gives the same compiled': stateless(lambda y, keys: y + (0 if traced(y) else 1)),
    'answers are finite, and so is what the defense notices': stateless(
        lambda outputs, keys: outputs * jnp.inf
    ),
    'answers do not depend on how queries are batched': stateless(
        lambda outputs, keys: outputs - outputs.mean(axis=0, keepdims=True)
    ),
    'queries beyond the budget change nothing': with_state(zero, count_rows),
    'padding changes nothing, whatever it holds': with_state(zero, remember_the_largest),
    'accounts side by side, under vmap, are accounts alone': stateless(on_the_host),
    '4 devices answer like one': stateless(lambda outputs, keys: on_one_device(outputs)),
    'a state that was saved goes on exactly': with_state(
        lambda: jnp.zeros([], jnp.bfloat16), in_bits
    ),
}


# Query strategies


def in_order(seen, count, state):
    return left(seen, count)[:count], state


def spoils_the_pool(seen, count, state):
    seen.inputs[0] = 0
    return in_order(seen, count, state)


def by_luck(seen, count, state):
    return np.random.default_rng().permutation(left(seen, count))[:count], state


def by_number(seen, count, state):
    return np.sort(left(seen, count))[:count], state


def stops_late(seen, count, state):
    asked = np.setdiff1d(np.arange(len(seen.inputs), dtype=np.int32), seen.asked)
    return np.random.default_rng(seen.seed).permutation(asked)[:count], state


def loses_heart(seen, count, state):
    if len(seen.asked) + count > 40:
        raise RuntimeError('too many')
    return in_order(seen, count, state)


STRATEGIES_BROKEN = {
    'it chooses in 1 round or more': Strategy(0, in_order),
    'of 60 inputs it asks 7, as told, and none twice': Strategy(
        1, lambda seen, count, state: (np.zeros(count, np.int32), state)
    ),
    'of 60 inputs it asks 60, as told, and none twice': Strategy(1, loses_heart),
    'it leaves what it is given alone': Strategy(1, spoils_the_pool),
    'it chooses the same again, its state kept in memory or on disk': Strategy(1, by_luck),
    'it chooses others under another seed': Strategy(1, by_number),
    'it stops where the pool is too small': Strategy(1, stops_late),
}


# Encoders


def apply_with(change):
    return LINEAR._replace(apply=lambda variables, x: change(LINEAR.apply(variables, x), x))


def train_with(change):
    return LINEAR._replace(train=lambda variables, x: change(*LINEAR.train(variables, x)))


ENCODERS = {
    'init gives float32 params and batch_stats': LINEAR._replace(
        init=lambda key, inputs: {'params': LINEAR.init(key, inputs)['params']}
    ),
    'init gives the same variables of a shape as of an array': LINEAR._replace(
        init=lambda key, inputs: LINEAR.init(key, inputs + 0)
    ),
    'init gives other params under another key': LINEAR._replace(
        init=lambda key, inputs: LINEAR.init(jax.random.key(0), inputs)
    ),
    'apply gives finite float32 [B, D]': apply_with(lambda y, x: y.astype(jnp.bfloat16)),
    'apply tells inputs apart': apply_with(lambda y, x: jnp.ones_like(y)),
    'apply treats every row alone': apply_with(lambda y, x: y - y.mean(axis=0, keepdims=True)),
    'apply gives the same compiled': apply_with(lambda y, x: y + (0 if traced(x) else 1)),
    'layers gives finite float32 [B, D] of each, those of apply last': LINEAR._replace(
        layers=lambda variables, x: (LINEAR.apply(variables, x) + 1,)
    ),
    'train gives what apply gives in shape, and statistics as they were': train_with(
        lambda y, stats: (y, {'count': jnp.ones([])})
    ),
    'train has a finite gradient that is not zero': train_with(
        lambda y, stats: (jax.lax.stop_gradient(y), stats)
    ),
    'train gives on 4 devices what it gives on one': train_with(
        lambda y, stats: (on_one_device(y), stats)
    ),
}


# Attacks


def direct(plan='once', loss=None):
    return attacks.make(
        'direct',
        encoder=LINEAR,
        answer_dim=4,
        plan=attacks.PLANS.make(plan),
        loss=loss or losses.mse(),
        student_augmentation=lambda key, image: image,
    )


def changed(**parts):
    return direct()._replace(recipe=direct().recipe._replace(**parts))


RECIPE: Recipe = direct().recipe


def asks_too(batch, key, ask, account):
    ask(batch['inputs'], account)
    return RECIPE.prepare(batch, key, ask, account)


def objective_with(change):
    def objective(params, batch_stats, batch):
        value, (stats, metrics) = RECIPE.objective(params, batch_stats, batch)
        return change(value, stats)[0], (change(value, stats)[1], metrics)

    return changed(objective=objective)


ATTACKS = {
    'init gives params and batch_stats, by the name of the network': changed(
        init=lambda key, inputs: LINEAR.init(key, inputs)
    ),
    'heads are heads that are registered': changed(heads=(('head', 'linaer(dim=3)'),)),
    'a step asks nothing, for its plan stores answers': changed(prepare=asks_too),
    'the loss is a finite float32 []': objective_with(lambda value, stats: (value / 0, stats)),
    'statistics keep their shapes and types': objective_with(
        lambda value, stats: (value, stats | {'count': jnp.ones([])})
    ),
    'the gradient is finite, and moves what is trained': objective_with(
        lambda value, stats: (jax.lax.stop_gradient(value), stats)
    ),
    'what stands for an answer that was refused does not count': direct(loss=ignores_where),
}

BROKEN = {
    'loss': LOSSES,
    'defense': DEFENSES,
    'query strategy': STRATEGIES_BROKEN,
    'encoder': ENCODERS,
    'attack': ATTACKS,
}


@pytest.mark.parametrize('kind', GOOD)
def test_every_clause_is_printed_and_has_an_implementation_that_breaks_it(kind, capsys):
    check, good = GOOD[kind]
    check(good)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(f'the {kind}: ') for line in lines)
    clauses = {line.removeprefix(f'the {kind}: ') for line in lines}
    assert {re.sub('^with where, and .* in the rows left out, ', '', c) for c in clauses} == {
        clause.replace(' 7,', ' 13,')
        for clause in BROKEN[kind]  # in 2 rounds instead of 1
    }


@pytest.mark.parametrize(
    ('kind', 'clause'), [(kind, clause) for kind in BROKEN for clause in BROKEN[kind]]
)
def test_what_breaks_a_clause_is_told_so_in_one_line(kind, clause):
    check, _ = GOOD[kind]
    with pytest.raises(UserError) as error:
        check(BROKEN[kind][clause])
    assert str(error.value).startswith(f'the {kind} breaks its contract: ')
    assert clause in str(error.value) and '\n' not in str(error.value)


def test_an_attack_that_asks_while_it_trains_asks_as_often_as_it_says():
    testing.check_attack('direct', plan='online')
    greedy = direct('online')._replace(asks=2)
    with pytest.raises(UserError, match='a step asks its views of each input, once: it asked'):
        testing.check_attack(greedy, plan='online')


def test_a_third_party_checks_by_name(registries_restored):
    @defenses.register('half')
    def half():
        return stateless(lambda outputs, keys: outputs / 2)

    @STRATEGIES.register('by_number')
    def first():
        return Strategy(1, by_number)

    testing.check_defense('half | round')
    with pytest.raises(UserError, match='others under another seed'):
        testing.check_strategy('by_number')
