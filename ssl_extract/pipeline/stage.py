"""The stages of a run, each stored under a content hash: victims, baselines, how any is trained.

The surrogate's own stage, with its answers, is `ssl_extract.pipeline.surrogate`.

A stage's folder is named by the hash of everything that its result depends on, the hashes of the
stages before it included. Runs that share a victim train it once; a finished stage is never
recomputed, an unfinished one goes on from its last checkpoint.
"""

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from ssl_extract import augment, defenses, encoders, training, victims
from ssl_extract.encoders import chain
from ssl_extract.oracle import store
from ssl_extract.pipeline import images as selection
from ssl_extract.runtime import checkpoint, files

VERSION = 4  # raised when a stage's meaning changes, so that old results are not taken for new ones


class Trained(NamedTuple):
    """An encoder that came out of a stage.

    Attributes:
        role: 'victim', 'surrogate', 'scratch' or 'random'.
        address: the hash of its stage: two encoders with one address are the same.
        encoder: the spec of its network.
        variables: its `{'params', 'batch_stats'}`.
        folder: its stage's folder; None for an untrained one.
        seconds: spent training it.
        flops: floating-point operations of its training; None where it was not trained here.
        bill: what its queries cost; None where none were asked.
        heads: (name, spec) of the networks that stood behind it in training, in their order.
        head_variables: theirs, by name.
        noticed: what the defense it asked behind knows of its account; see `defenses.noticed`.
    """

    role: str
    address: str
    encoder: str
    variables: Any
    folder: epath.Path | None
    seconds: float
    flops: float | None
    bill: store.Bill | None
    heads: tuple[tuple[str, str], ...] = ()
    head_variables: Any = None
    noticed: dict[str, float] | None = None


make_encoder = functools.cache(encoders.make)  # one Network a spec, so that one program serves all
make_head = functools.cache(encoders.make_head)
make_augmentation = functools.cache(augment.make)


def address(spec: dict[str, Any]) -> str:
    """The content hash of a stage's description."""
    text = json.dumps({'version': VERSION, **spec}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seed_of(role: str, seed: int) -> int:
    """The seed of a role's initialization and order: who has one seed must not start alike.

    A surrogate that starts from its victim's own initialization ends closer to it than an attacker
    could come.
    """
    text = json.dumps({'role': role, 'seed': seed, 'version': 2}, sort_keys=True)
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % 2**31


@functools.cache
def victim_recipe(method: str, encoder: str, augmentation: str) -> training.Recipe:
    """The pretraining that a config describes."""
    return victims.VICTIMS.make(
        method, encoder=make_encoder(encoder), augmentation=make_augmentation(augmentation)
    )


def victim(cfg: ml_collections.ConfigDict, workdir: epath.Path, mesh) -> Trained:
    """Pretrains the victim, or loads `victim.checkpoint`."""
    if cfg.victim.checkpoint:
        folder = epath.Path(cfg.victim.checkpoint)
        loaded = finished('victim', '', folder, mesh)
        return loaded._replace(address=_content_hash(loaded), bill=None)
    dataset = selection.load_victim_images(cfg)
    spec = {
        'stage': 'victim',
        'inputs': selection.describe_victim_images(cfg),
        **without(cfg.victim, 'checkpoint'),
    }
    recipe = victim_recipe(cfg.victim.method, cfg.victim.encoder, cfg.victim.augmentation)
    return train(
        'victim',
        spec,
        workdir,
        mesh,
        recipe,
        {'inputs': dataset.inputs},
        encoder=cfg.victim.encoder,
        num_steps=cfg.victim.epochs * (len(dataset.inputs) // cfg.victim.batch_size),
        batch_size=cfg.victim.batch_size,
        seed=cfg.victim.seed,
        fields=cfg.victim,
        every=cfg.training,
    )


def random(cfg: ml_collections.ConfigDict, encoder: str, input_shape: tuple[int, ...]) -> Trained:
    """The surrogate's network, untrained, from a seed of its own."""
    encoder = cfg.attack.encoder or encoder
    spec = {'stage': 'random', 'encoder': encoder, 'seed': cfg.seed, 'shape': input_shape}
    key = jax.random.key(seed_of('random', cfg.seed))
    variables = make_encoder(encoder).init(key, jnp.zeros((1, *input_shape)))
    return Trained('random', address(spec), encoder, variables, None, 0.0, None, None)


def scratch(cfg: ml_collections.ConfigDict, encoder: str, workdir: epath.Path, mesh) -> Trained:
    """Pretrains on the attacker's own images, without a victim: what stealing must beat."""
    encoder = cfg.attack.encoder or encoder
    images = selection.load_own(cfg).inputs
    batch_size = cfg.baselines.scratch_batch_size
    spec = {
        'stage': 'scratch',
        'inputs': selection.describe_own(cfg),
        'encoder': encoder,
        'epochs': cfg.baselines.scratch_epochs,
        'batch_size': batch_size,
        **without(cfg.victim, 'checkpoint', 'encoder', 'split', 'seed', 'epochs', 'batch_size'),
    }
    return train(
        'scratch',
        spec,
        workdir,
        mesh,
        victim_recipe(cfg.victim.method, encoder, cfg.victim.augmentation),
        {'inputs': images},
        encoder=encoder,
        num_steps=cfg.baselines.scratch_epochs * (len(images) // batch_size),
        batch_size=batch_size,
        seed=cfg.seed,
        fields=cfg.victim,
        every=cfg.training,
    )


def train(
    role, spec, workdir, mesh, recipe, arrays, *,
    encoder, num_steps, batch_size, seed, fields, every, bill=None, noticed=None,
    oracle=None, account=(), frozen=None, before=(0.0, 0.0), label=''
) -> Trained:  # fmt: skip
    """Trains a stage's encoder, unless it is there already, and saves it.

    Args:
        spec: all that the result depends on.
        fields: where the learning rate, schedule and optimizer stand.
        bill, noticed: of the stored answers it is trained on.
        every: how often a checkpoint is made and metrics are fetched.
        frozen: variables of networks trained before; see `training.init_state`.
        before: seconds and operations that preparing the training took.
        label: for the progress bar.
    """
    where = address(spec)
    folder = workdir / role / where
    if not (folder / 'meta.json').exists():
        describe(folder, spec)
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
            frozen=frozen,
            checkpoint_every=every.checkpoint_every,
            log_every=every.log_every,
            description=f'{role} {label}'.strip(),
        )
        if oracle is not None:
            bill = store.make_bill(fit.asked, fit.state.oracle.num_refused)
            noticed = defenses.noticed(fit.state.oracle.defense)
        heads = {n: spec for n, spec in recipe.heads if n in fit.state.params}
        meta = {
            'encoder': encoder,
            'heads': heads,
            'input_shape': list(arrays['inputs'].shape[1:]),
            'seconds': round(before[0] + fit.seconds, 2),
            'flops': before[1] + fit.flops,
            'bill': None if bill is None else bill._asdict(),
            'noticed': noticed or {},
        }
        parts = {name: chain.part(fit.state, name) for name in heads}
        checkpoint.save_encoder(folder, chain.part(fit.state, 'encoder'), meta, parts)
        (folder / 'checkpoints').rmtree(missing_ok=True)
    return finished(role, where, folder, mesh)


def finished(role: str, where: str, folder: epath.Path, mesh) -> Trained:
    """Reads what `train` saved, or any encoder with its `meta.json`."""
    meta = checkpoint.read_meta(folder)
    network = make_encoder(meta['encoder'])
    inputs = jax.ShapeDtypeStruct((1, *meta['input_shape']), jnp.float32)
    template = jax.eval_shape(network.init, jax.random.key(0), inputs)
    variables = checkpoint.load_encoder(folder, template, mesh)
    heads, templates = meta.get('heads') or {}, {}
    for name, spec in heads.items():
        inputs = jax.eval_shape(network.apply, template, inputs)
        network = make_head(spec)
        template = templates[name] = jax.eval_shape(network.init, jax.random.key(0), inputs)
    bill = meta.get('bill')
    return Trained(
        role,
        where,
        meta['encoder'],
        variables,
        folder,
        meta.get('seconds', 0.0),
        meta.get('flops'),
        bill and store.Bill(**bill),
        tuple(heads.items()),
        checkpoint.load_encoder(folder, templates, mesh, 'heads') if heads else {},
        meta.get('noticed') or {},
    )


def outputs(trained: Trained) -> tuple[Callable, Any]:
    """`(apply, variables)` of an encoder with all its heads: what it was trained to answer."""
    variables = {'encoder': trained.variables, **trained.head_variables}
    return _through(trained.encoder, trained.heads), variables


@functools.cache
def _through(encoder: str, heads: tuple[tuple[str, str], ...]) -> Callable:
    networks = {'encoder': make_encoder(encoder)} | {name: make_head(spec) for name, spec in heads}

    def apply(variables, inputs):
        for name, network in networks.items():
            inputs = network.apply(variables[name], inputs)
        return inputs

    return apply


def _content_hash(trained: Trained) -> str:
    """The address of an encoder that came from outside: the hash of its parameters themselves."""
    leaves = jax.tree.leaves_with_path(trained.variables)
    digest = hashlib.sha256(trained.encoder.encode())
    for path, leaf in leaves:
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def describe(folder: epath.Path, spec: dict[str, Any]) -> None:
    """Says beside a stage's files what they are the result of."""
    if not (folder / 'spec.json').exists():
        files.write_json(folder / 'spec.json', spec)


def without(fields: ml_collections.ConfigDict, *names: str) -> dict[str, Any]:
    """A part of a config, for a hash."""
    return {k: v for k, v in fields.to_dict().items() if k not in names}
