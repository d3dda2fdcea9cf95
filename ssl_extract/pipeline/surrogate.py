"""The surrogate's stage: choose queries, ask, recover, train.

Under a stored plan the queries are chosen by a strategy, in one round or in several with a scout (a
surrogate of the answers so far) between them; then they are asked, and the surrogate is trained on
the answers. Under `online` the training asks.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import attacks, data, losses, strategies, training
from ssl_extract.attacks import Attack
from ssl_extract.encoders import chain, trained
from ssl_extract.evaluation import features
from ssl_extract.pipeline import own, services, stage
from ssl_extract.pipeline.ask import Arrays, Attacker, ask, make_plan, rows_of
from ssl_extract.pipeline.baselines import Scratch
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.owner import Owner
from ssl_extract.pipeline.sets import Sets, pool_order
from ssl_extract.pipeline.stage import Optimization, Trained
from ssl_extract.pipeline.victim import Sketch, make_augmentation
from ssl_extract.runtime import files, hosts

make_loss = functools.cache(losses.make)


class Extraction(NamedTuple):
    """An attack on one service, with all that the attack needs.

    Attributes:
        attacker: the sender of the queries.
        attack: the surrogate's training.
        strategy: the choice of the inputs.
        recover: the spec of the recoveries, which change the answers before training.
        init: the spec of the surrogate's start.
        scratch: the pretraining of the attacker's own encoder; None where nothing needs it.
        encoder: the spec of the surrogate's network.
        epochs: passes over the answers.
        how: optimizer, schedule, learning rate and batch size.
        spec: everything that the surrogate depends on.
        label: for the progress bar.
    """

    attacker: Attacker
    attack: Attack
    strategy: strategies.Strategy
    recover: str
    init: str
    scratch: Scratch | None
    encoder: str
    epochs: int
    how: Optimization
    spec: dict[str, Any]
    label: str


@functools.cache
def make_attack(
    name: str,
    loss: str,
    encoder: str,
    plan: str,
    query_augmentation: str,
    student_augmentation: str,
    answer_dim: int,
    accounts: int = 1,
) -> Attack:
    """Makes an attack; the same specs give the same object, which is compiled once.

    Args:
        name: the spec of the attack.
        loss: the spec of the loss.
        encoder: the spec of the surrogate's network.
        plan: the spec of the query plan.
        query_augmentation: the spec of a view under the plan.
        student_augmentation: the spec of the surrogate's views.
        answer_dim: the width of an answer.
        accounts: the number of accounts whose answers lie in spaces of their own.
    """
    return attacks.make(
        name,
        encoder=trained.make(encoder),
        answer_dim=answer_dim,
        accounts=accounts,
        plan=make_plan(plan, query_augmentation),
        loss=make_loss(loss),
        student_augmentation=make_augmentation(student_augmentation),
    )


def attack_of(run: Run, sketch: Sketch, num_classes: int) -> Attack:
    """Returns the attack that a config describes on a victim of this kind.

    Args:
        run: the run.
        sketch: the run's victim.
        num_classes: classes of the first task.
    """
    a = run.config.attack
    endpoint = attacks.endpoint_of(a.name)
    dim = services.answer_dim(sketch, endpoint, run.config.defense, num_classes)
    encoder, query_augmentation = a.encoder or sketch.encoder, a.query_augmentation
    specs = a.name, a.loss, encoder, a.plan, query_augmentation, a.student_augmentation
    return make_attack(*specs, dim, 1 if a.overlap else a.accounts)


def specs_of(
    run: Run, sets: Sets, sketch: Sketch, victims_owner: Owner
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what a surrogate and its account's answers depend on; computes nothing.

    Budgets and attacks that choose the same queries share an account. The bill of a row is still
    what the row's attack alone would have paid. An online attack opens a separate account, and so
    does an attack that chooses by what it learned. Behind a defense every budget has a separate
    account, so that the defense's findings belong to that budget. Every budget also has a separate
    account where the strategy may choose other inputs for another budget.

    Args:
        run: the run.
        sets: the run's data.
        sketch: the run's victim.
        victims_owner: the victim's owner.

    Returns:
        The description of the surrogate and that of the account.
    """
    c, a, workspace = run.config, run.config.attack, run.workspace
    endpoint, fields = attacks.endpoint_of(a.name), a.to_dict()
    common = {
        **services.service_spec(workspace, victims_owner, endpoint, c.defense),
        'pool': sets.pool_spec,
        'seed': c.seed,
    }
    elsewhere = ('data', 'split', 'init', *(['overlap'] if a.accounts == 1 else []))
    spec = {
        'stage': 'surrogate',
        **common,
        **{k: v for k, v in fields.items() if k not in elsewhere},
        'encoder': a.encoder or sketch.encoder,
        **own.spec_of(run, own.scratch_of(run, sets, sketch)),
    }
    account = {'stage': 'answers', **common}
    account |= {name: fields[name] for name in ('plan', 'query_augmentation', 'strategy')}
    if c.defense or strategies.STRATEGIES.traits(a.strategy).chooses:
        account['budget'] = a.budget
    if a.accounts > 1:
        account |= {'accounts': a.accounts, 'overlap': a.overlap}
    plan = make_plan(a.plan, a.query_augmentation)
    if not (plan.stored and strategies.make(a.strategy).rounds == 1):
        account = spec | account
    return spec, account


def scout_spec(spec: dict[str, Any], number: int) -> dict[str, Any]:
    """Returns what the scout of a round depends on; `spec` describes the surrogate.

    Args:
        spec: the description of the surrogate.
        number: the number of the round, from 0.
    """
    return spec | {'stage': 'scout', 'round': number}


def extraction_of(run: Run, sets: Sets, sketch: Sketch, victims_owner: Owner) -> Extraction:
    """Returns the extraction that a config describes; sets the service up, sends nothing.

    Args:
        run: the run.
        sets: the run's data.
        sketch: the run's victim.
        victims_owner: the victim's owner.
    """
    c, a, workspace = run.config, run.config.attack, run.workspace
    spec, account = specs_of(run, sets, sketch, victims_owner)
    endpoint = attacks.endpoint_of(a.name)
    attacker = Attacker(
        services.serve(workspace, victims_owner, endpoint, c.defense),
        sets.pool,
        make_plan(a.plan, a.query_augmentation),
        a.budget,
        c.seed,
        a.batch_size,
        a.accounts,
        a.overlap,
        account,
    )
    return Extraction(
        attacker,
        attack_of(run, sketch, sets.num_classes),
        strategies.make(a.strategy),
        a.recover,
        a.init,
        own.scratch_of(run, sets, sketch),
        spec['encoder'],
        a.epochs,
        Optimization(a.optimizer, a.schedule, a.learning_rate, a.batch_size),
        spec,
        f'{a.name} {a.loss} {a.budget}',
    )


def steal(workspace: Workspace, extraction: Extraction) -> Trained:
    """Returns the surrogate of an extraction, which is trained where it is not there yet.

    Args:
        workspace: where results are kept.
        extraction: the attack.
    """

    def make(folder: epath.Path) -> Trained:
        if extraction.attacker.plan.stored:
            return ready(workspace, extraction, folder)(folder=folder)
        return _steal_online(workspace, extraction, folder)

    form = stage.encoder_form(workspace, 'surrogate')
    return stage.cached(workspace, 'surrogate', extraction.spec, make, form)


def shares(num_inputs: int, rounds: int) -> list[int]:
    """Returns how many inputs each round chooses."""
    return [len(part) for part in np.array_split(np.arange(num_inputs), rounds)]


def num_steps(epochs: int, num_inputs: int, batch_size: int) -> int:
    """Returns the steps of `epochs` over the inputs asked."""
    return epochs * (num_inputs // batch_size)


def _steal_online(workspace: Workspace, extraction: Extraction, folder: epath.Path) -> Trained:
    attacker, pool = extraction.attacker, extraction.attacker.pool
    decode, oracle = data.decoder(pool), attacker.service.oracle(attacker.budget)
    began = own.begin(workspace, extraction.init, extraction.scratch)
    stored = jax.ShapeDtypeStruct((attacker.batch_size, *pool.inputs.shape[1:]), pool.inputs.dtype)
    seen = jax.eval_shape(decode, stored)
    return stage.fit_encoder(
        workspace,
        folder,
        extraction.attack.recipe,
        rows_of(pool, pool_order(len(pool.inputs), attacker.seed)),
        role='surrogate',
        encoder=extraction.encoder,
        seed=attacker.seed,
        num_steps=math.ceil(attacker.budget / (attacker.batch_size * extraction.attack.asks)),
        how=extraction.how,
        decode=decode,
        oracle=oracle,
        account=oracle.init(attacker.key(), jnp.zeros(seen.shape, seen.dtype)),
        initial=began.initial,
        before=(began.seconds, began.flops),
        label=extraction.label,
    )


def ready(
    workspace: Workspace, extraction: Extraction, folder: epath.Path
) -> functools.partial[Trained]:
    """Chooses, asks and trains in rounds, up to the last training, which is the surrogate's.

    The choice of a round and the strategy's state are written before a query is sent, so that a
    killed run sends the same ones. A scout's record counts time and operations of earlier rounds.

    Args:
        workspace: where results are kept.
        extraction: the attack, under a stored plan.
        folder: the surrogate's, whose lock is held.

    Returns:
        `stage.fit_encoder` with all but the folder.
    """
    attacker, rounds = extraction.attacker, extraction.strategy.rounds
    chosen, arrays, state = np.zeros(0, np.int32), {}, {}
    scout, began = None, own.begin(workspace, extraction.init, extraction.scratch)
    spent = began.seconds, began.flops  # so far
    for number, count in enumerate(shares(attacker.num_inputs, rounds)):
        path = folder / 'chosen' / f'round-{number:03d}.npz'
        see = _make_see(workspace, extraction, chosen, arrays, scout, number)
        new, state = _choose(extraction.strategy, path, see, count, state)
        chosen = np.concatenate([chosen, new])
        arrays, bill, noticed = ask(workspace, attacker, chosen)
        if extraction.recover:
            scratch, pool = extraction.scratch, attacker.pool
            arrays = own.recover(
                workspace, extraction.recover, scratch, pool, attacker.seed, arrays
            )
        frozen, *took = _before(workspace, extraction, arrays, folder / f'before-{number:03d}')
        fit = functools.partial(
            stage.fit_encoder,
            workspace,
            recipe=extraction.attack.recipe,
            arrays=arrays,
            encoder=extraction.encoder,
            seed=attacker.seed,
            num_steps=num_steps(extraction.epochs, len(arrays['inputs']), attacker.batch_size),
            how=extraction.how,
            decode=data.decoder(attacker.pool),
            bill=bill,
            noticed=noticed,
            frozen=frozen,
            initial=began.initial,
            before=(spent[0] + took[0], spent[1] + took[1]),
            label=extraction.label,
        )
        if number + 1 == rounds:
            return functools.partial(fit, role='surrogate')
        scout = stage.cached(
            workspace,
            'scout',
            scout_spec(extraction.spec, number),
            lambda where, fit=fit: fit(folder=where, role='scout'),
            stage.encoder_form(workspace, 'scout'),
        )
        spent = scout.record.seconds, scout.record.flops
    raise AssertionError('a strategy has at least one round')


def _choose(
    strategy: strategies.Strategy,
    path: epath.Path,
    see: Callable[[], strategies.Seen],
    count: int,
    state: Any,
) -> tuple[np.ndarray, Any]:
    """Returns a round's choice and the strategy's next state, or reads both."""
    if not hosts.agreed(path.exists):
        new, state = strategy.choose(see(), count, state)
        arrays = {f'state_{name}': value for name, value in state.items()}
        files.write_npz(path, chosen=new, **arrays)
        hosts.wait()
    arrays = files.read_npz(path)
    new = arrays.pop('chosen')
    return new, {name.removeprefix('state_'): value for name, value in arrays.items()}


def _make_see(
    workspace: Workspace,
    extraction: Extraction,
    chosen: np.ndarray,
    arrays: Arrays,
    scout: Trained | None,
    number: int,
) -> Callable[[], strategies.Seen]:
    """Returns a function that computes the attacker's knowledge before the next queries."""
    pool, mesh = extraction.attacker.pool, workspace.mesh

    def see() -> strategies.Seen:
        means, represent, predict = np.zeros((0, 0), np.float32), None, None
        if scout is not None:
            answered = arrays['answered'][..., None]
            means = (arrays['answers'] * answered).sum(axis=1) / np.maximum(answered.sum(axis=1), 1)
            extract = functools.partial(features.extract, decode=data.decoder(pool), mesh=mesh)
            encoder = scout.encoder
            represent = functools.partial(extract, encoder.network.apply, encoder.variables)
            predict = functools.partial(extract, *encoder.through_heads())
        return strategies.Seen(
            pool.inputs,
            pool.labels,
            chosen,
            means,
            represent,
            predict,
            extraction.attacker.seed,
            number,
        )

    return see


def _before(
    workspace: Workspace, extraction: Extraction, arrays: Arrays, folder: epath.Path
) -> tuple[Any, float, float]:
    """Trains an attack's first phase: (its networks' variables, seconds, operations)."""
    attack = extraction.attack
    if attack.before is None:
        return None, 0.0, 0.0
    steps = num_steps(extraction.epochs, len(arrays['inputs']), extraction.how.batch_size)
    rate = attack.before_learning_rate or extraction.how.learning_rate
    fit = training.fit(
        attack.before,
        arrays,
        num_steps=math.ceil(attack.before_epochs * steps),
        **extraction.how._replace(learning_rate=rate)._asdict(),
        seed=stage.seed_of('before', extraction.attacker.seed),
        folder=folder,
        mesh=workspace.mesh,
        decode=data.decoder(extraction.attacker.pool),
        **workspace.rhythm(),
        description=f'before {extraction.label}',
        field='attack.learning_rate',
    )
    return {name: chain.part(fit.state, name) for name in fit.state.params}, fit.seconds, fit.flops
