"""The legitimate users: what a defense costs those whom the victim is there for.

A user has an account of its own behind the same defense as the attacker: it asks its labeled
images, fits a classifier to the answers, and then, on the same account, asks the test images. So do
the users of Dziedzic et al. (arXiv 2205.07890, section A.2), who train and are tested through the
noisy API. Each is measured without a defense too, with the same images and classifier: the
difference is what the defense took from it. `ssl_extract.users` says which kinds there are.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from ssl_extract import attacks, data
from ssl_extract.errors import UserError
from ssl_extract.evaluation import intervals
from ssl_extract.oracle import MAX_BUDGET, store
from ssl_extract.pipeline import access, owner, stage
from ssl_extract.pipeline import images as selection
from ssl_extract.pipeline.stage import Trained
from ssl_extract.runtime import files
from ssl_extract.users import MODELS, USERS, Predict
from ssl_extract.victims import endpoints


class Visit(NamedTuple):
    """All that a user sends, its own images first.

    Attributes:
        queries: the first `len(known)` are its own images, the others the test images.
        known: int[M], the labels of its own images, one for each query.
        truth: int[N], the labels of the test images.
    """

    queries: store.Queries
    known: np.ndarray
    truth: np.ndarray


def check(cfg: ml_collections.ConfigDict) -> None:
    """Checks the fields of `legitimate` against the first task, whose sets must have labels.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    _make_model(cfg)
    for kind in cfg.legitimate.users:
        visit_of(cfg, kind)


def rows(
    cfg: ml_collections.ConfigDict, target: Trained, workdir: epath.Path, mesh: jax.sharding.Mesh
) -> dict[str, list[dict[str, Any]]]:
    """What the users of a defended victim are left with, and what they would have without defense.

    The metrics are `user_accuracy`, on the test images as the defense answers them;
    `user_accuracy_clean`, of the same classifier on undefended answers to them (none where the
    defense changes the width of the answers); and `noticed.NAME`, what the defense knows of the
    account in the end.

    Args:
        cfg: of a run; without a defense there are no users.
        target: the victim.

    Returns:
        The rows of each measured user, as of results.jsonl without what does not apply, by a name
        that the same user of another run has too.
    """
    found = {}
    for kind in cfg.legitimate.users if cfg.defense else ():
        for one in (_with(cfg, defense=''), cfg):
            spec = {
                **account_of(one, kind, target),
                'stage': 'legitimate',
                'model': cfg.legitimate.model,
                'probe': cfg.evaluation.probe,
            }
            folder = workdir / 'legitimate' / stage.address(spec)
            if not (folder / 'users.json').exists():
                stage.describe(folder, spec)
                files.write_json(folder / 'users.json', measure(one, kind, target, workdir, mesh))
            kept = files.read_json(folder / 'users.json')
            common = {
                'role': 'legitimate',
                'user': kind,
                'endpoint': attacks.endpoint_of(cfg.attack.name),
                'defense': one.defense,
                'encoder': target.encoder,
                'budget': kept['sent'],
                'seed': cfg.seed,
                **{f'queries_{name}': count for name, count in kept['bill'].items()},
                'dollars': kept['bill']['billed'] * cfg.cost.dollars_per_1000_queries / 1000,
                'seconds': kept['seconds'],
            }
            found[f'legitimate {stage.address(spec)}'] = [common | m for m in kept['measured']]
    return found


def measure(
    cfg: ml_collections.ConfigDict,
    kind: str,
    target: Trained,
    workdir: epath.Path,
    mesh: jax.sharding.Mesh,
) -> dict[str, Any]:
    """Lets a user of `kind` ask, learn and be tested.

    A test image that is not answered counts as wrong. A user with answers to fewer than two of its
    classes has no classifier: it guesses the commonest class of its own images, answered or not.
    Who is answered with classes needs none: the largest coordinate is its prediction.
    """
    started = time.monotonic()
    visit = visit_of(cfg, kind)
    got = ask(cfg, kind, target, workdir, mesh)
    own = len(visit.known)
    known = got.granted[:own]
    features, granted = got.representations[own:], got.granted[own:]
    if _answers_classes(cfg):
        classify = functools.partial(np.argmax, axis=1)
    else:
        classify = _fit(cfg, got.representations[:own][known], visit.known[known])
    measured = []

    def add(metric: str, predictions: np.ndarray) -> None:
        name = selection.load_tasks(cfg)[0].name
        found = intervals.accuracy(predictions, visit.truth)
        measured.append({'task': name, 'metric': metric, **found._asdict()})

    if classify is None:
        granted = np.ones_like(granted)
        commonest = np.bincount(visit.known).argmax()
        classify = lambda features: np.full(len(features), commonest)  # noqa: E731
    add('user_accuracy', np.where(granted, classify(features), -1))
    if cfg.defense:
        clean = ask(_with(cfg, defense=''), kind, target, workdir, mesh).representations[own:]
        if clean.shape == features.shape:
            add('user_accuracy_clean', classify(clean))
    for name, value in got.noticed.items():
        if math.isfinite(value):
            measured.append({'metric': f'noticed.{name}', 'value': value})
    return {
        'measured': measured,
        'sent': len(visit.queries.index),
        'bill': got.bill._asdict(),
        'seconds': round(time.monotonic() - started, 2),
    }


def ask(
    cfg: ml_collections.ConfigDict,
    kind: str,
    target: Trained,
    workdir: epath.Path,
    mesh: jax.sharding.Mesh,
) -> store.Answers:
    """The answers to all that a user sends, from its store; asks what is not there yet."""
    queries = visit_of(cfg, kind).queries
    unlimited = _with(cfg, budget=MAX_BUDGET)  # they send what they must; one program for all
    who = account_of(cfg, kind, target)
    folder = workdir / 'answers' / stage.address(who)
    stage.describe(folder, who)
    return store.collect(
        folder,
        access.make_oracle(unlimited, target, workdir, mesh),
        account_key(cfg, kind),
        queries,
        budget=MAX_BUDGET,
        batch_size=cfg.attack.batch_size,
        mesh=mesh,
        description=f'{kind} user asks',
    )


def account_of(cfg: ml_collections.ConfigDict, kind: str, target: Trained) -> dict[str, Any]:
    """Which user asks what of whom: what its answers depend on."""
    task = selection.load_tasks(cfg)[0]
    return {
        'stage': 'answers',
        'role': 'legitimate',
        'user': kind,
        'victim': target.address,
        'endpoint': owner.endpoint_spec(cfg, target),
        'defense': cfg.defense,
        'images': cfg.legitimate.images,
        'test_images': cfg.legitimate.test_images,
        'train': data.digest(task.train),
        'test': data.digest(task.test),
        'seed': cfg.seed,
    }


def account_key(cfg: ml_collections.ConfigDict, kind: str) -> jax.Array:
    """The key of a user's account."""
    return jax.random.key(stage.seed_of(f'legitimate {kind}', cfg.seed))


def visit_of(cfg: ml_collections.ConfigDict, kind: str) -> Visit:
    """What a user of `kind` sends under a config.

    Its own images are the first `legitimate.images` of its classes in the first task's training
    set, in an order drawn from the seed, or all of them; none where it is answered with classes.
    Its test images are the first `legitimate.test_images` of its classes, or all of them.

    Raises:
        UserError: there is no such user, or the task has no images of its classes.
    """
    user, task = USERS.make(kind), selection.load_tasks(cfg)[0]
    try:
        classes = user.classes(np.random.default_rng((cfg.seed, 4)), task.train.num_classes)
    except UserError as error:
        raise UserError(f'legitimate.users has {kind!r}: {error}') from error
    order = np.random.default_rng((cfg.seed, 5)).permutation(len(task.train.inputs))
    own = order[np.isin(task.train.labels[order], classes)][: cfg.legitimate.images]
    test = np.flatnonzero(np.isin(task.test.labels, classes))[: cfg.legitimate.test_images or None]
    for rows_, dataset in ((own, task.train), (test, task.test)):
        if not len(rows_):
            raise UserError(
                f'legitimate.users has {kind!r}: {dataset.name} has no image of its classes '
                f'{sorted(map(int, classes))}; write a larger split, or another user'
            )
    own = own[:0] if _answers_classes(cfg) else own
    known = np.repeat(np.arange(len(own)), max(user.views, 1))
    index = np.concatenate([known, len(own) + np.arange(len(test))])
    seeds = np.zeros(len(index), np.uint32)
    if user.views:  # above 0, which stands for the image as it is
        drawn = np.random.default_rng((cfg.seed, 6)).integers(1, 2**32, len(known), np.uint32)
        seeds[: len(known)] = drawn
    images = np.concatenate([task.train.inputs[own], task.test.inputs[test]])
    view = _view(user.augmentation) if user.views else None
    queries = store.Queries(images, index, seeds, view)
    return Visit(queries, task.train.labels[own][known], task.test.labels[test])


def _fit(cfg, features: np.ndarray, labels: np.ndarray) -> Predict | None:
    """Fits the user's model to its answers; None where they are of fewer than two classes."""
    classes, targets, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        return None
    single = counts[targets] == 1  # given twice: a probe needs one to learn from, one to validate
    features = np.concatenate([features, features[single]])
    classify = _make_model(cfg)(features, np.concatenate([targets, targets[single]]), len(classes))
    return lambda features: classes[classify(features)]


def _make_model(cfg) -> Callable[..., Predict]:
    return MODELS.make(cfg.legitimate.model, probe=cfg.evaluation.probe, seed=cfg.seed)


def _answers_classes(cfg) -> bool:
    return endpoints.needs_classifier(attacks.endpoint_of(cfg.attack.name))


@functools.cache
def _view(augmentation: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Views by their seeds; a seed of 0 is the image as it is."""
    augment = stage.make_augmentation(augmentation)

    def view(images: jax.Array, seeds: jax.Array) -> jax.Array:
        augmented = jax.vmap(augment)(jax.vmap(jax.random.key)(seeds), images)
        return jnp.where((seeds == 0)[:, None, None, None], images, augmented)

    return view


def _with(cfg, *, defense: str | None = None, budget: int | None = None):
    """The config with another defense or budget."""
    changed = cfg.copy_and_resolve_references()
    changed.defense = cfg.defense if defense is None else defense
    changed.attack.budget = budget or cfg.attack.budget
    return changed
