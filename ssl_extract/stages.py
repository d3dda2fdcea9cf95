"""The stages of a run: victim, answers, surrogate (or scratch), each stored under a content hash.

A stage's folder is named by the hash of everything that its result depends on, the hashes of the
stages before it included. Runs that share a victim train it once; a finished stage is never
recomputed, an unfinished one goes on from its last checkpoint.
"""

import functools
import hashlib
import json
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from ssl_extract import (
    answers,
    attacks,
    augment,
    checkpoint,
    defenses,
    encoders,
    files,
    losses,
    oracle,
    selection,
    training,
    victims,
)
from ssl_extract.encoders import chain

VERSION = 2  # raised when a stage's meaning changes, so that old results are not taken for new ones


class Trained(NamedTuple):
    """An encoder that came out of a stage.

    Attributes:
        role: 'victim', 'surrogate', 'scratch' or 'random'.
        address: the hash of its stage: two encoders with one address are the same.
        encoder: the spec of its network.
        variables: its `{'params', 'batch_stats'}`.
        folder: its stage's folder; None for an untrained one.
        seconds: spent training it.
        bill: what its queries cost; None where none were asked.
    """

    role: str
    address: str
    encoder: str
    variables: Any
    folder: epath.Path | None
    seconds: float
    bill: answers.Bill | None


make_encoder = functools.cache(encoders.make)  # one Network a spec, so that one program serves all
make_loss = functools.cache(losses.make)
make_augmentation = functools.cache(augment.make)


def address(spec: dict[str, Any]) -> str:
    """The content hash of a stage's description."""
    text = json.dumps({'version': VERSION, **spec}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seed_of(role: str, seed: int) -> int:
    """The seed of a role's initialisation and order: who has one seed must not start alike.

    A surrogate that starts from its victim's own initialisation ends closer to it than a thief
    could come.
    """
    return int(address({'role': role, 'seed': seed}), 16) % 2**31


@functools.cache
def victim_recipe(method: str, encoder: str, augmentation: str) -> training.Recipe:
    """The pretraining that a config describes."""
    return victims.VICTIMS.make(
        method, encoder=make_encoder(encoder), augmentation=make_augmentation(augmentation)
    )


@functools.cache
def attack_recipe(
    name: str, loss: str, encoder: str, plan: str, asked: str, seen: str, answer_dim: int
) -> training.Recipe:
    """The attack that a config describes."""
    prepare = attacks.PLANS.make(
        plan,
        query_augmentation=make_augmentation(asked),
        student_augmentation=make_augmentation(seen),
    )
    return attacks.ATTACKS.make(
        name,
        encoder=make_encoder(encoder),
        prepare=prepare,
        loss=make_loss(loss),
        answer_dim=answer_dim,
    )


def attack_recipe_of(cfg: ml_collections.ConfigDict, encoder: str, image_shape) -> training.Recipe:
    """`attack_recipe` for a config whose victim has the network `encoder`."""
    return attack_recipe(
        cfg.attack.name,
        cfg.attack.loss,
        cfg.attack.encoder or encoder,
        cfg.attack.plan,
        cfg.attack.query_augmentation,
        cfg.attack.student_augmentation,
        answer_dim(cfg.defense, encoder, image_shape),
    )


@functools.cache
def answer_dim(defense: str, encoder: str, image_shape: tuple[int, ...]) -> int:
    """The width of the answers: the representation's, unless a defense changes it."""
    network, built = make_encoder(encoder), defenses.make(defense)

    def answer(key):
        images = jnp.zeros((1, *image_shape))
        asked = oracle.make_oracle(
            jax.tree_util.Partial(network.apply, network.init(key, images)), built, budget=1
        )
        return asked.query(images, asked.init(key, images))[0].representations

    return jax.eval_shape(answer, jax.random.key(0)).shape[-1]


def victim(cfg: ml_collections.ConfigDict, workdir: epath.Path, mesh) -> Trained:
    """Pretrains the victim, or loads `victim.checkpoint`."""
    if cfg.victim.checkpoint:
        folder = epath.Path(cfg.victim.checkpoint)
        loaded = _finished('victim', '', folder, checkpoint.read_meta(folder), mesh)
        return loaded._replace(address=_content_hash(loaded), bill=None)
    dataset = selection.load_victim_images(cfg)
    spec = {
        'stage': 'victim',
        'images': selection.describe_victim_images(cfg),
        **_without(cfg.victim, 'checkpoint'),
    }
    recipe = victim_recipe(cfg.victim.method, cfg.victim.encoder, cfg.victim.augmentation)
    return _train(
        'victim',
        spec,
        workdir,
        mesh,
        recipe,
        {'images': dataset.images},
        encoder=cfg.victim.encoder,
        num_steps=cfg.victim.epochs * (len(dataset.images) // cfg.victim.batch_size),
        batch_size=cfg.victim.batch_size,
        seed=cfg.victim.seed,
        fields=cfg.victim,
        every=cfg.training,
    )


def random(cfg: ml_collections.ConfigDict, encoder: str, image_shape: tuple[int, ...]) -> Trained:
    """The surrogate's network as it is before any training."""
    encoder = cfg.attack.encoder or encoder
    spec = {'stage': 'random', 'encoder': encoder, 'seed': cfg.seed, 'shape': image_shape}
    key = jax.random.key(seed_of('random', cfg.seed))
    variables = make_encoder(encoder).init(key, jnp.zeros((1, *image_shape)))
    return Trained('random', address(spec), encoder, variables, None, 0.0, None)


def scratch(cfg: ml_collections.ConfigDict, encoder: str, workdir: epath.Path, mesh) -> Trained:
    """The victim's method on the thief's own images, without a victim: what stealing must beat."""
    encoder = cfg.attack.encoder or encoder
    images = selection.load_queries(cfg).images
    batch_size = cfg.baselines.scratch_batch_size
    spec = {
        'stage': 'scratch',
        'queries': selection.describe_queries(cfg),
        'encoder': encoder,
        'epochs': cfg.baselines.scratch_epochs,
        'batch_size': batch_size,
        **_without(cfg.victim, 'checkpoint', 'encoder', 'split', 'seed', 'epochs', 'batch_size'),
    }
    return _train(
        'scratch',
        spec,
        workdir,
        mesh,
        victim_recipe(cfg.victim.method, encoder, cfg.victim.augmentation),
        {'images': images},
        encoder=encoder,
        num_steps=cfg.baselines.scratch_epochs * (len(images) // batch_size),
        batch_size=batch_size,
        seed=cfg.seed,
        fields=cfg.victim,
        every=cfg.training,
    )


def surrogate(
    cfg: ml_collections.ConfigDict, target: Trained, workdir: epath.Path, mesh
) -> Trained:
    """Steals the target under the budget."""
    dataset = selection.load_queries(cfg)
    image_shape = dataset.images.shape[1:]
    key = jax.random.fold_in(jax.random.key(cfg.seed), 2)  # of the account
    asked = make_oracle(cfg, target)
    arrays = {'images': dataset.images}
    if dataset.labels is not None:
        arrays['labels'] = dataset.labels
    spec = {
        'stage': 'surrogate',
        'victim': target.address,
        'defense': cfg.defense,
        'queries': selection.describe_queries(cfg),
        'seed': cfg.seed,
        **_without(cfg.attack),
        'encoder': cfg.attack.encoder or target.encoder,
    }
    folder = workdir / 'surrogate' / address(spec)
    if (folder / 'meta.json').exists():
        return _finished('surrogate', address(spec), folder, checkpoint.read_meta(folder), mesh)
    bill, account = None, ()
    if selection.is_collected(cfg):
        who = account_of(cfg, target)
        store = workdir / 'answers' / address(who)
        _describe(store, who)
        arrays['answers'], bill = answers.collect(
            store,
            asked,
            key,
            dataset.images,
            budget=cfg.attack.budget,
            batch_size=cfg.attack.batch_size,
            mesh=mesh,
            description=f'ask {target.encoder.split("(")[0]}',
        )
        num_steps = cfg.attack.epochs * (len(dataset.images) // cfg.attack.batch_size)
    else:
        account = asked.init(key, jnp.zeros((cfg.attack.batch_size, *image_shape)))
        num_steps = math.ceil(cfg.attack.budget / cfg.attack.batch_size)
    return _train(
        'surrogate',
        spec,
        workdir,
        mesh,
        attack_recipe_of(cfg, target.encoder, image_shape),
        arrays,
        encoder=spec['encoder'],
        num_steps=num_steps,
        batch_size=cfg.attack.batch_size,
        seed=cfg.seed,
        fields=cfg.attack,
        every=cfg.training,
        bill=bill,
        oracle=None if selection.is_collected(cfg) else asked,
        account=account,
        label=f'{cfg.attack.name} {cfg.attack.loss} {cfg.attack.budget}',
    )


def account_of(cfg: ml_collections.ConfigDict, target: Trained) -> dict[str, Any]:
    """Who asks: the victim, the defense and the thief's images, plan and seed.

    Budgets and losses share a collected account (a row's bill is still what its attack alone would
    have paid); an online attack opens one of its own.
    """
    who = {
        'stage': 'answers',
        'victim': target.address,
        'defense': cfg.defense,
        'pool': selection.describe_pool(cfg),
        'plan': cfg.attack.plan,
        'seed': cfg.seed,
    }
    return who if selection.is_collected(cfg) else who | cfg.attack.to_dict()


def make_oracle(cfg: ml_collections.ConfigDict, target: Trained) -> oracle.Oracle:
    """The only way from a victim to an attack."""
    encode = jax.tree_util.Partial(make_encoder(target.encoder).apply, target.variables)
    return oracle.make_oracle(encode, defenses.make(cfg.defense), budget=cfg.attack.budget)


def _train(
    role, spec, workdir, mesh, recipe, arrays, *, encoder, num_steps, batch_size, seed, fields,
    every, bill=None, oracle=None, account=(), label=''
) -> Trained:  # fmt: skip
    """Trains a stage's encoder, unless it is there already, and saves it."""
    where = address(spec)
    folder = workdir / role / where
    if not (folder / 'meta.json').exists():
        _describe(folder, spec)
        fit = training.fit(
            recipe,
            arrays,
            num_steps=num_steps,
            batch_size=batch_size,
            learning_rate=fields.learning_rate,
            optimizer=fields.optimizer,
            schedule=fields.schedule,
            seed=seed_of(role, seed),
            folder=folder,
            mesh=mesh,
            oracle=oracle,
            account=account,
            checkpoint_every=every.checkpoint_every,
            log_every=every.log_every,
            description=f'{role} {label}'.strip(),
        )
        if oracle is not None:
            bill = answers.make_bill(fit.asked, fit.state.oracle.num_refused)
        meta = {
            'encoder': encoder,
            'image_shape': list(arrays['images'].shape[1:]),
            'seconds': round(fit.seconds, 2),
            'bill': None if bill is None else bill._asdict(),
        }
        checkpoint.save_encoder(folder, chain.part(fit.state, 'encoder'), meta)
        (folder / 'checkpoints').rmtree(missing_ok=True)
    return _finished(role, where, folder, checkpoint.read_meta(folder), mesh)


def _finished(role: str, where: str, folder: epath.Path, meta: dict[str, Any], mesh) -> Trained:
    network = make_encoder(meta['encoder'])
    image = jax.ShapeDtypeStruct((1, *meta['image_shape']), jnp.float32)
    template = jax.eval_shape(network.init, jax.random.key(0), image)
    bill = meta.get('bill')
    return Trained(
        role,
        where,
        meta['encoder'],
        checkpoint.load_encoder(folder, template, mesh),
        folder,
        meta.get('seconds', 0.0),
        bill and answers.Bill(**bill),
    )


def _content_hash(trained: Trained) -> str:
    """The address of an encoder that came from outside: the hash of its parameters themselves."""
    leaves = jax.tree.leaves_with_path(trained.variables)
    digest = hashlib.sha256(trained.encoder.encode())
    for path, leaf in leaves:
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _describe(folder: epath.Path, spec: dict[str, Any]) -> None:
    """Says beside a stage's files what they are the result of."""
    if not (folder / 'spec.json').exists():
        files.write_json(folder / 'spec.json', spec)


def _without(fields: ml_collections.ConfigDict, *names: str) -> dict[str, Any]:
    return {k: v for k, v in fields.to_dict().items() if k not in names}
