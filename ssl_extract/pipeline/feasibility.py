"""Feasibility of victim and attack: choices, budgets and training steps.

Choices must go together, the budget must fit the pool, the steps must build, and the arrays must
fit into memory.
"""

import functools
import math
from typing import Any

import jax
import numpy as np

from ssl_extract import (
    attacks,
    checks,
    data,
    defenses,
    encoders,
    losses,
    recovery,
    strategies,
    victims,
)
from ssl_extract.data import decoding
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.identity import is_ours
from ssl_extract.pipeline import baselines, services, surrogate
from ssl_extract.pipeline.ask import make_plan
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.sets import Sets
from ssl_extract.pipeline.tracing import check_batch, check_step
from ssl_extract.pipeline.victim import (
    Sketch,
    abstract_variables,
    check_victims_inputs,
    make_recipe,
)
from ssl_extract.recovery import sybils
from ssl_extract.registry import check_least_batch
from ssl_extract.victims import endpoints


def check_victim(run: Run, sets: Sets, sketch: Sketch) -> None:
    """Checks the batches and the step of a victim that is to be pretrained.

    Args:
        run: the run.
        sets: the run's data.
        sketch: the run's victim.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    c = run.config.victim
    if not sketch.address:
        mesh = run.workspace.mesh
        check_least_batch('victim.batch_size', c.batch_size, (victims.VICTIMS, c.method))
        count = len(sets.victim.inputs)
        check_batch(count, c.batch_size, 'victim.batch_size', mesh)
        check_steps('victim.epochs', c.epochs, count, c.batch_size)
        check_network('victim.encoder', c.encoder, sketch.input_shape, sets)
        recipe = make_recipe(c.method, c.encoder, c.augmentation)
        several = run.workspace.steps_per_dispatch > 1
        check_step(recipe, c.batch_size, sketch.input_shape, 'victim', in_loop=several)


def check_attack(run: Run, sets: Sets, sketch: Sketch) -> None:
    """Checks that attack, service, strategy and recovery go together, and builds the steps.

    Args:
        run: the run.
        sets: the run's data.
        sketch: the run's victim.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    c, a = run.config, run.config.attack
    endpoint, defense = attacks.endpoint_of(a.name), c.defense
    services.check_service(sketch, endpoint, defense)
    if 'shadow' in defenses.needs(defense):  # it is trained on victim.split
        check_victims_inputs(sets)
        if sketch.shadow:
            check_network('victim.encoder', sketch.shadow, sketch.input_shape, sets)
    plan = make_plan(a.plan, a.query_augmentation)
    if not (sketch.encoder or a.encoder):
        raise UserError("attack.encoder='': the victim has no network of ours; name one")
    if not sketch.traced and not plan.stored:
        raise UserError(
            f'attack.plan={a.plan!r} asks within a compiled step, and the victim is no JAX '
            "function; write attack.plan='once' or 'views(m=1)'"
        )
    if a.recover:
        _check_recovery(run, sets, sketch, endpoint)
    needs = strategies.needs(a.strategy)
    if 'labels' in needs:  # found now, before a query is paid
        data.require_labels(sets.pool)
    if 'images' in needs and (sets.pool.inputs.dtype != 'uint8' or sets.pool.inputs.ndim != 4):
        advice = 'store it as uint8, or ' if sets.pool.inputs.ndim == 4 else ''
        raise UserError(
            f'attack.strategy={a.strategy!r} augments images of uint8, and {sets.pool.name} holds '
            f'{sets.pool.inputs.dtype} {list(sets.pool.inputs.shape)}; {advice}choose another '
            'strategy'
        )
    if 'lengths' in needs and decoding.padding_of(sets.pool.decode) is None:
        raise UserError(
            f'attack.strategy={a.strategy!r} compares the lengths of clips or texts, and '
            f'{sets.pool.name} holds neither; choose another strategy'
        )
    if 'probabilities' in needs and endpoints.gives(endpoint) != 'probabilities':
        raise UserError(
            f'attack.strategy={a.strategy!r} learns from probabilities and attack '
            f'{a.name!r} gets a {endpoint}; attack posteriors or labels with it'
        )
    if sketch.encoder:
        encoders.check_vocabulary('victim', sketch.encoder, sets.pool)
    check_network('attack.encoder', a.encoder or sketch.encoder, sketch.input_shape, sets)
    check_account(sketch, endpoint, defense, sets.num_classes)
    parts = (losses.LOSSES, a.loss), (attacks.ATTACKS, a.name)
    check_least_batch('attack.batch_size', a.batch_size, *parts)
    apart = a.accounts > 1 and a.overlap == 0
    if apart and not attacks.ATTACKS.traits(a.name).per_account:
        raise UserError(
            f'attack.overlap=0: without inputs that all of {a.accounts} accounts ask no map is '
            f'fitted, and {a.name!r} learns from one space; write attack.overlap={5 * sketch.dim}, '
            "or attack.name='direct(adapter=True)'"
        )
    attack = surrogate.attack_of(run, sketch, sets.num_classes)
    least = max(registry.traits(spec).least_batch for registry, spec in parts)
    left = a.budget % (a.batch_size * attack.asks)  # queries of the last step
    if not plan.stored and 0 < left < least * attack.asks and least > 1:
        raise UserError(
            f'attack.budget={a.budget}: plan {a.plan!r} has {left} queries left for the last step, '
            f'from which loss {a.loss!r} and attack {a.name!r} learn nothing; write '
            f'{a.budget - left + least * attack.asks}'
        )
    check_step(
        attack.recipe,
        a.batch_size,
        sketch.input_shape,
        'attack',
        sets.pool.labels is not None,
        services.answer_dim(sketch, endpoint, defense, sets.num_classes),
        max(plan.stored, 1),
        (sketch, endpoint, defense, sets.num_classes),
        attack.before,
        apart,
        run.workspace.steps_per_dispatch > 1,
    )


def check_budget(run: Run, sets: Sets) -> None:
    """Checks that the budget fits the pool, and every batch its set.

    Args:
        run: the run.
        sets: the run's data.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    c, mesh, pool = run.config, run.workspace.mesh, sets.pool
    a = c.attack
    plan = make_plan(a.plan, a.query_augmentation)
    stored = plan.stored
    alone = plan.stored == 1 and plan.view is None  # each input is asked once, as it is
    if a.accounts > 1 and not (alone and strategies.make(a.strategy).rounds == 1):
        raise UserError(
            f"attack.accounts={a.accounts}: several accounts share out the inputs of plan 'once', "
            "chosen in one round; write attack.plan='once' and attack.strategy='random'"
        )
    count = len(pool.inputs)
    if a.accounts > 1:
        count = sybils.num_images(a.budget, a.accounts, a.overlap)
    elif stored:
        count = -(-a.budget // stored)
    if count > len(pool.inputs):
        raise UserError(
            f'attack.budget={a.budget}: {pool.name} has {len(pool.inputs)} different inputs and '
            f'plan {a.plan!r} asks each {"one time" if stored == 1 else f"{stored} times"}'
            f'; write at most {len(pool.inputs) * stored}, a larger attack.split, or '
            "attack.plan='online'"
        )
    check_batch(count, a.batch_size, 'attack.batch_size', mesh)
    check_steps('attack.epochs', a.epochs, count, a.batch_size)
    rounds = strategies.make(a.strategy).rounds
    parts = surrogate.shares(count, rounds)
    if rounds > 1 and min(parts) < a.batch_size:
        raise UserError(
            f'attack.strategy={a.strategy!r}: the budget pays for {sum(parts)} inputs, '
            f'{min(parts)} a round, fewer than attack.batch_size={a.batch_size}'
        )
    if c.baselines.scratch_inputs > len(pool.inputs):
        raise UserError(
            f'baselines.scratch_inputs={c.baselines.scratch_inputs}: {pool.name} has '
            f'{len(pool.inputs)} different inputs; write at most that, or a larger attack.split'
        )
    if c.baselines.scratch_epochs:
        num_inputs = baselines.num_inputs(run, len(pool.inputs))
        b, field = c.baselines, 'baselines.scratch_batch_size'
        check_least_batch(field, b.scratch_batch_size, (victims.VICTIMS, c.victim.method))
        check_batch(num_inputs, b.scratch_batch_size, field, mesh)
        check_steps('baselines.scratch_epochs', b.scratch_epochs, num_inputs, b.scratch_batch_size)


def check_steps(field: str, epochs: int, num_inputs: int, batch_size: int) -> None:
    """Raises UserError, naming `field`, where a training has more steps than an int32 counts."""
    steps = epochs * (num_inputs // batch_size)
    if steps >= 2**31:
        raise UserError(
            f'{field}={epochs}: that makes {steps:,} steps of {batch_size} of {num_inputs:,} '
            f'inputs; write at most {(2**31 - 1) * epochs // steps}'
        )


def check_network(field: str, encoder: str, input_shape: tuple[int, ...], sets: Sets) -> None:
    """Checks that the training of a network fits into memory, and that it knows all tokens.

    Args:
        field: the field of the network, for an error message.
        encoder: the spec of the network.
        input_shape: the shape of one input.
        sets: the run's data.

    Raises:
        UserError: the memory is too small, or a set has a token that the network does not know.
    """
    seen = [part for task in sets.tasks for part in (task.train, task.test)]
    encoders.check_vocabulary(field, encoder, sets.victim, sets.pool, *seen)
    size = _num_bytes(abstract_variables(encoder, input_shape))
    checks.check_memory(f'{field}={encoder!r}: parameters, gradient and two moments', 4 * size)


@functools.cache
def check_account(sketch: Sketch, endpoint: str, defense: str, num_classes: int) -> None:
    """Checks the state that a defense keeps of an account: its size, and its numbers.

    The defenses of the package hold finite numbers; those of users are tried on random answers.

    Args:
        sketch: the victim.
        endpoint: the kind of answer, such as 'representation'.
        defense: the spec or chain of the defense; '' is none.
        num_classes: classes of the owner's task.

    Raises:
        UserError: the state does not fit into memory, or holds a scalar that is not finite.
    """
    oracle = services.example_oracle(sketch, endpoint, defense, num_classes)
    inputs = jax.ShapeDtypeStruct((1, *sketch.input_shape), np.float32)
    state = jax.eval_shape(lambda o, x: o.init(jax.random.key(0), x), oracle, inputs).defense
    checks.check_memory(f'defense={defense!r}: the state of an account', _num_bytes(state))
    if all(is_ours(defenses.DEFENSES.module_of(name)) for name in defenses.DEFENSES.names(defense)):
        return
    rng, dim = np.random.default_rng(0), services.answer_dim(sketch, endpoint, '', num_classes)
    answers = rng.dirichlet(np.ones(dim), 8)
    made = services.example_defense(sketch, endpoint, defense)
    _, _, state = defenses.apply_once(made, answers, rng.uniform(size=(8, *sketch.input_shape)))
    for path, leaf in jax.tree.leaves_with_path(state):
        if np.ndim(leaf) == 0 and _is_number(leaf) and not math.isfinite(leaf):
            raise UserError(
                f'defense={defense!r}: {jax.tree_util.keystr(path)} of its state is {leaf} after '
                'the first answers, and results hold finite numbers only; start it from one'
            )


def _is_number(leaf: Any) -> bool:
    return not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _num_bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if _is_number(x))


def check_plan(a: Any) -> None:
    """Checks that query plan, query augmentation and strategy go together.

    Args:
        a: the fields of `attack`.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    plan, query_augmentation = make_plan(a.plan, a.query_augmentation), a.query_augmentation
    augments = attacks.PLANS.traits(a.plan).augments
    if not augments and query_augmentation != 'none':
        raise UserError(
            f'attack.query_augmentation={query_augmentation!r}: plan {a.plan!r} asks each input as '
            "it is; write attack.plan='views(m=1)' or 'online', or attack.student_augmentation"
        )
    if plan.stored > 1 and augments and query_augmentation == 'none':
        raise UserError(
            f'attack.plan={a.plan!r} would ask the same input {plan.stored} times; write '
            f"attack.query_augmentation='simclr', or attack.plan='repeat(m={plan.stored})'"
        )
    if not plan.stored and strategies.STRATEGIES.traits(a.strategy).chooses:
        raise UserError(
            f'attack.strategy={a.strategy!r}: plan {a.plan!r} asks views of all of the '
            "attacker's inputs; write attack.plan='once' or 'views(m=1)'"
        )


def _check_recovery(run: Run, sets: Sets, sketch: Sketch, endpoint: str) -> None:
    c, a = run.config, run.config.attack
    if not make_plan(a.plan, a.query_augmentation).stored:
        raise UserError(
            f'attack.recover={a.recover!r} works on stored answers and plan '
            f"{a.plan!r} stores none; write attack.plan='once' or 'views(m=1)'"
        )
    if 'shadow' not in recovery.needs(a.recover):
        return
    if not c.baselines.scratch_epochs:
        raise UserError(
            f"attack.recover={a.recover!r} learns from the attacker's own encoder: set "
            'baselines.scratch_epochs'
        )
    if endpoints.gives(endpoint) != 'representations':
        raise UserError(
            f'attack.recover={a.recover!r} knows representations and attack '
            f'{a.name!r} gets a {endpoint}; attack representations with it'
        )
    own_dim = encoders.dim(trained.make(a.encoder or sketch.encoder), sketch.input_shape)
    same_width = any(t.same_width for t in recovery.RECOVERIES.traits_of_chain(a.recover))
    answer_dim = services.answer_dim(sketch, endpoint, '', sets.num_classes)
    if same_width and own_dim != answer_dim:
        raise UserError(
            f'attack.recover={a.recover!r}: the answers have {answer_dim} coordinates and the '
            f"attacker's own encoder {own_dim}; write an attack.encoder of that width, or ''"
        )
