"""The surrogate's stage: choose queries, ask, train.

Under a stored plan the queries are chosen by a strategy, in one round or in several with a scout (a
surrogate of the answers so far) between them; then they are asked, and the surrogate is trained on
the answers. Under `online` the training itself asks.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from ssl_extract import attacks, data, losses, oracle, recovery, strategies, training
from ssl_extract.encoders import chain
from ssl_extract.evaluation import features
from ssl_extract.oracle import store
from ssl_extract.pipeline import access, owner, stage
from ssl_extract.pipeline import images as selection
from ssl_extract.pipeline.stage import Trained
from ssl_extract.recovery import sybils
from ssl_extract.runtime import files

make_loss = functools.cache(losses.make)


@functools.cache
def make_attack(
    name: str, loss: str, encoder: str, plan: str, asked: str, seen: str, answer_dim: int
) -> attacks.Attack:
    """The attack that a config describes."""
    return attacks.make(
        name,
        encoder=stage.make_encoder(encoder),
        answer_dim=answer_dim,
        plan=access.make_plan(plan, asked),
        loss=make_loss(loss),
        student_augmentation=stage.make_augmentation(seen),
    )


def attack_of(
    cfg: ml_collections.ConfigDict,
    encoder: str,
    heads: tuple[tuple[str, str], ...],
    input_shape: tuple[int, ...],
) -> attacks.Attack:
    """`make_attack` for a config whose victim has these networks."""
    return make_attack(
        cfg.attack.name,
        cfg.attack.loss,
        cfg.attack.encoder or encoder,
        cfg.attack.plan,
        cfg.attack.query_augmentation,
        cfg.attack.student_augmentation,
        access.answer_dim(cfg, encoder, heads, input_shape),
    )


def surrogate(
    cfg: ml_collections.ConfigDict, target: Trained, workdir: epath.Path, mesh
) -> Trained:
    """Steals the target under the budget."""
    spec = {
        'stage': 'surrogate',
        'victim': target.address,
        'endpoint': owner.endpoint_spec(cfg, target),
        'defense': cfg.defense,
        'pool': selection.describe_pool(cfg),
        'seed': cfg.seed,
        **stage.without(cfg.attack),
        'encoder': cfg.attack.encoder or target.encoder,
    }
    folder = workdir / 'surrogate' / stage.address(spec)
    if (folder / 'meta.json').exists():
        return stage.finished('surrogate', stage.address(spec), folder, mesh)
    stage.describe(folder, spec)
    attack = attack_of(cfg, target.encoder, target.heads, selection.input_shape(cfg))
    asked = access.make_oracle(cfg, target, workdir, mesh)
    train = functools.partial(
        stage.train,
        workdir=workdir,
        mesh=mesh,
        recipe=attack.recipe,
        encoder=spec['encoder'],
        batch_size=cfg.attack.batch_size,
        seed=cfg.seed,
        fields=cfg.attack,
        every=cfg.training,
        label=f'{cfg.attack.name} {cfg.attack.loss} {cfg.attack.budget}',
    )
    if not access.plan_of(cfg).stored:
        images = jnp.zeros((cfg.attack.batch_size, *selection.input_shape(cfg)))
        return train(
            'surrogate',
            spec,
            arrays=rows_of(selection.load_pool(cfg), selection.order(cfg)),
            num_steps=math.ceil(cfg.attack.budget / (cfg.attack.batch_size * attack.asks)),
            oracle=asked,
            account=asked.init(access.account_key(cfg), images),
        )
    shadow = recovery.Shadow(_shadow(cfg, target, workdir, mesh), cfg.seed)
    strategy = strategies.make(cfg.attack.strategy)
    chosen, arrays, state, scout = np.zeros(0, np.int32), {}, {}, None
    spent = (0.0, 0.0)  # seconds and operations so far
    for number, count in enumerate(shares(cfg, strategy.rounds)):
        path = folder / 'chosen' / f'round-{number:03d}.npz'
        if not path.exists():
            seen = _see(cfg, chosen, arrays, scout, number, mesh)
            new, state = strategy.choose(seen, count, state)
            kept = {f'state_{name}': value for name, value in state.items()}
            files.write_npz(path, chosen=new, **kept)
        kept = files.read_npz(path)
        chosen = np.concatenate([chosen, kept.pop('chosen')])
        state = {name.removeprefix('state_'): value for name, value in kept.items()}
        arrays, bill, noticed = ask(cfg, chosen, asked, target, workdir, mesh)
        if cfg.attack.recover:
            arrays = recover(cfg, arrays, shadow)
        frozen, *took = _before(cfg, attack, arrays, folder / f'before-{number:03d}', mesh)
        last = number + 1 == strategy.rounds
        scout = train(
            'surrogate' if last else 'scout',
            spec if last else spec | {'stage': 'scout', 'round': number},
            arrays=arrays,
            num_steps=num_steps(cfg, arrays),
            bill=bill,
            noticed=noticed,
            frozen=frozen,
            before=(spent[0] + took[0], spent[1] + took[1]),
        )
        spent = scout.seconds, scout.flops  # of this round and all before it
    return scout


def num_steps(cfg: ml_collections.ConfigDict, arrays: dict[str, np.ndarray]) -> int:
    """Steps of `attack.epochs` over the images asked."""
    return cfg.attack.epochs * (len(arrays['inputs']) // cfg.attack.batch_size)


def shares(cfg: ml_collections.ConfigDict, rounds: int) -> list[int]:
    """How many images each round chooses."""
    images = selection.num_images(cfg, access.plan_of(cfg).stored)
    return [len(part) for part in np.array_split(np.arange(images), rounds)]


def rows_of(pool: data.Dataset, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Training arrays of some images of the pool, without answers."""
    labels = {} if pool.labels is None else {'labels': pool.labels[chosen]}
    return {'inputs': pool.inputs[chosen], **labels}


def ask(
    cfg: ml_collections.ConfigDict,
    chosen: np.ndarray,
    asked: oracle.Oracle,
    target: Trained,
    workdir: epath.Path,
    mesh: jax.sharding.Mesh,
) -> tuple[dict[str, np.ndarray], store.Bill, dict[str, float]]:
    """Training arrays of the chosen images with their answers, what these cost and gave away.

    Of several accounts, what the defense noticed is the largest that it noticed of one.
    """
    if cfg.attack.accounts == 1:
        return _ask_account(cfg, chosen, asked, target, workdir, mesh)
    dealt = sybils.deal(len(chosen), cfg.attack.accounts, cfg.attack.overlap)
    every = [
        _ask_account(cfg, chosen[part], asked, target, workdir, mesh, number)
        for number, part in enumerate(dealt)
    ]
    got = [
        recovery.Received(arrays['inputs'], arrays['answers'], arrays['answered'])
        for arrays, _, _ in every
    ]
    merged = sybils.merge(got, cfg.attack.overlap)
    arrays = rows_of(selection.load_pool(cfg), chosen) | {
        'answers': merged.answers,
        'answered': merged.answered,
        'view_seeds': np.zeros(merged.answered.shape, np.uint32),
    }
    billed, refused = (sum(getattr(bill, n) for _, bill, _ in every) for n in ('billed', 'refused'))
    answered = [part[one.answered.any(axis=1)] for part, one in zip(dealt, got, strict=True)]
    unique = len(np.unique(np.concatenate(answered)))
    names = every[0][2]
    noticed = {name: max(noticed[name] for _, _, noticed in every) for name in names}
    return arrays, store.Bill(billed, unique, billed - unique, refused), noticed


def _ask_account(
    cfg, chosen, asked, target, workdir, mesh, number=0
) -> tuple[dict[str, np.ndarray], store.Bill, dict[str, float]]:
    who = access.account_of(cfg, target)
    if cfg.attack.accounts > 1:
        who |= {'account': number}
    folder = workdir / 'answers' / stage.address(who)
    stage.describe(folder, who)
    plan, pool = access.plan_of(cfg), selection.load_pool(cfg)
    seeds = np.tile(np.arange(plan.stored, dtype=np.uint32), (len(chosen), 1))
    if plan.view is not None:
        every = np.random.default_rng((cfg.seed, 3))
        shape = (len(pool.inputs), plan.stored)
        seeds = every.integers(2**32, size=shape, dtype=np.uint32)[chosen]
    count = min(cfg.attack.budget, seeds.size)  # an odd budget ends within an image's views
    index = np.repeat(np.arange(len(chosen)), plan.stored)[:count]
    got = store.collect(
        folder,
        asked,
        access.account_key(cfg, number),
        store.Queries(pool.inputs[chosen], index, seeds.ravel()[:count], plan.view),
        budget=cfg.attack.budget,
        batch_size=cfg.attack.batch_size,
        mesh=mesh,
        description='ask',
    )
    padded = np.zeros((seeds.size, got.representations.shape[1]), np.float32)
    padded[:count] = got.representations
    answered = np.zeros(seeds.size, bool)
    answered[:count] = got.granted
    arrays = rows_of(pool, chosen) | {
        'answers': padded.reshape(*seeds.shape, -1),
        'answered': answered.reshape(seeds.shape),
        'view_seeds': seeds,
    }
    return arrays, got.bill, got.noticed


def recover(
    cfg: ml_collections.ConfigDict, arrays: dict[str, np.ndarray], shadow: recovery.Shadow
) -> dict[str, np.ndarray]:
    """The training arrays after `attack.recover` on their answers."""
    received = recovery.Received(arrays['inputs'], arrays['answers'], arrays['answered'])
    found = recovery.make(cfg.attack.recover)(received, shadow)
    return arrays | {'answers': found.answers.astype(np.float32), 'answered': found.answered}


def _shadow(cfg, target: Trained, workdir: epath.Path, mesh):
    """Representations of the attacker's own encoder, trained without the victim when first used."""

    @functools.cache
    def trained() -> Trained:
        return stage.scratch(cfg, target.encoder, workdir, mesh)

    def represent(images: np.ndarray) -> np.ndarray:
        network = stage.make_encoder(trained().encoder)
        return features.extract(network.apply, trained().variables, images, mesh=mesh)

    return represent


def _see(cfg, chosen, arrays, scout: Trained | None, number: int, mesh) -> strategies.Seen:
    """What the attacker knows when it chooses its next queries."""
    pool = selection.load_pool(cfg)
    got, represent, predict = np.zeros((0, 0), np.float32), None, None
    if scout is not None:
        given = arrays['answered'][..., None]
        got = (arrays['answers'] * given).sum(axis=1) / np.maximum(given.sum(axis=1), 1)
        network, through = stage.make_encoder(scout.encoder).apply, stage.outputs(scout)
        represent = functools.partial(features.extract, network, scout.variables, mesh=mesh)
        predict = functools.partial(features.extract, *through, mesh=mesh)
    return strategies.Seen(
        pool.inputs, pool.labels, chosen, got, represent, predict, cfg.seed, number
    )


def _before(cfg, attack, arrays, folder: epath.Path, mesh) -> tuple[Any, float, float]:
    """Trains what an attack trains first: (its networks' variables, seconds, operations)."""
    if attack.before is None:
        return None, 0.0, 0.0
    fit = training.fit(
        attack.before,
        arrays,
        num_steps=math.ceil(attack.before_epochs * num_steps(cfg, arrays)),
        batch_size=cfg.attack.batch_size,
        learning_rate=cfg.attack.learning_rate,
        optimizer=cfg.attack.optimizer,
        schedule=cfg.attack.schedule,
        seed=stage.seed_of('before', cfg.seed),
        folder=folder,
        mesh=mesh,
        checkpoint_every=cfg.training.checkpoint_every,
        log_every=cfg.training.log_every,
        description=f'before {cfg.attack.name}',
    )
    return {name: chain.part(fit.state, name) for name in fit.state.params}, fit.seconds, fit.flops
