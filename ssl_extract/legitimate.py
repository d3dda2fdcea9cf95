"""The legitimate users: what a defense costs those whom the victim is there for.

A user has an account of its own behind the same defense as the thief: it asks its labelled images,
fits a classifier to the answers, and then, on the same account, asks the test images. So do the
users of Dziedzic et al. (arXiv 2205.07890, section A.2), who train and are tested through the noisy
API. Each is measured without a defense too, with the same images and classifier: the difference is
what the defense took from it.

A new kind of user is a factory that returns a `User`, under `@USERS.register('its_name')`; a new
classifier is one that returns `fit`, under `@MODELS.register('its_name')`.
"""

import functools
import math
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from ssl_extract import (
    access,
    answers,
    attacks,
    data,
    endpoints,
    files,
    owner,
    selection,
    stages,
)
from ssl_extract.errors import UserError
from ssl_extract.evaluation import intervals
from ssl_extract.evaluation.assess import PROBES
from ssl_extract.evaluation.probe import predict
from ssl_extract.oracle import MAX_BUDGET
from ssl_extract.registry import Registry
from ssl_extract.stages import Trained

USERS = Registry('legitimate user')
MODELS = Registry("legitimate user's model")

Predict = Callable[[np.ndarray], np.ndarray]  # features [N, D] -> classes [N]


class User(NamedTuple):
    """What a user asks.

    Attributes:
        classes: `(rng, num_classes) -> int[K]`, those of the task that it has to do with.
        views: augmented views asked of each of its own images; 0: the image as it is. Test images
            are always asked as they are.
        augmentation: what a view is; see `ssl_extract.augment`.
    """

    classes: Callable[[np.random.Generator, int], np.ndarray]
    views: int = 0
    augmentation: str = 'none'


class Visit(NamedTuple):
    """All that a user sends, its own images first.

    Attributes:
        queries: the first `len(known)` are its own images, the others the test images.
        known: int[M], the labels of its own images, one for each query.
        truth: int[N], the labels of the test images.
    """

    queries: answers.Queries
    known: np.ndarray
    truth: np.ndarray


@USERS.register('broad')
def broad() -> User:
    """Has images of all classes."""
    return User(_every)


@USERS.register('narrow')
def narrow(classes: int = 3) -> User:
    """Has images of a few classes, drawn from the seed, and is tested on those.

    Raises:
        UserError: `classes` is not a whole number of at least 2, or more than the task has.
    """
    _check_whole('classes', classes, 2)

    def draw(rng: np.random.Generator, num_classes: int) -> np.ndarray:
        if classes > num_classes:
            raise UserError(f'classes={classes}: the first task has {num_classes}; write fewer')
        return rng.choice(num_classes, classes, replace=False)

    return User(draw)


@USERS.register('augmenting')
def augmenting(views: int = 2, augmentation: str = 'simclr(strength=0.5, min_scale=0.2)') -> User:
    """Has images of all classes and asks `views` augmented views of each, to train on them all.

    Raises:
        UserError: `views` is not a whole number of at least 1, or there is no such augmentation.
    """
    _check_whole('views', views, 1)
    stages.make_augmentation(augmentation)
    return User(_every, views, augmentation)


@MODELS.register('probe')
def linear(probe: str = 'lbfgs') -> Callable[..., Predict]:
    """The linear probe that the encoders are evaluated with."""

    def fit(features: np.ndarray, labels: np.ndarray, num_classes: int) -> Predict:
        return functools.partial(predict, PROBES.make(probe)(features, labels, num_classes))

    return fit


@MODELS.register('mlp')
def mlp(
    width: int = 512,
    epochs: int = 100,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    seed: int = 0,
) -> Callable[..., Predict]:
    """The user of arXiv 2205.07890 (its code): two layers, ReLU, Adam with decay in the gradient.

    The biases do not decay, as they do there; the initialisation is scikit-learn's (Glorot).
    """
    for name, value in (('width', width), ('epochs', epochs), ('batch_size', batch_size)):
        _check_whole(name, value, 1)
    if not learning_rate > 0 or not weight_decay >= 0:
        raise UserError(
            f'learning_rate={learning_rate}, weight_decay={weight_decay}: write a rate above 0 '
            'and a decay of at least 0'
        )

    def fit(features: np.ndarray, labels: np.ndarray, num_classes: int) -> Predict:
        del num_classes  # those of the labels
        size = min(batch_size, len(labels))
        network = MLPClassifier(
            (width,),
            alpha=weight_decay * size,  # scikit-learn divides the penalty by the batch
            batch_size=size,
            learning_rate_init=learning_rate,
            max_iter=epochs,
            n_iter_no_change=epochs,  # all of them, whether the loss still falls or not
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', ConvergenceWarning)
            return network.fit(features, labels).predict

    return fit


def check(cfg: ml_collections.ConfigDict) -> None:
    """Checks the fields of `legitimate` against the first task, whose sets must have labels.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    _check_whole('legitimate.images', cfg.legitimate.images, 1)
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
            folder = workdir / 'legitimate' / stages.address(spec)
            if not (folder / 'users.json').exists():
                stages.describe(folder, spec)
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
            found[f'legitimate {stages.address(spec)}'] = [common | m for m in kept['measured']]
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
) -> answers.Answers:
    """The answers to all that a user sends, from its store; asks what is not there yet."""
    queries = visit_of(cfg, kind).queries
    unlimited = _with(cfg, budget=MAX_BUDGET)  # they send what they must; one program for all
    who = account_of(cfg, kind, target)
    store = workdir / 'answers' / stages.address(who)
    stages.describe(store, who)
    return answers.collect(
        store,
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
    return jax.random.key(stages.seed_of(f'legitimate {kind}', cfg.seed))


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
    order = np.random.default_rng((cfg.seed, 5)).permutation(len(task.train.images))
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
    images = np.concatenate([task.train.images[own], task.test.images[test]])
    view = _view(user.augmentation) if user.views else None
    queries = answers.Queries(images, index, seeds, view)
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
    augment = stages.make_augmentation(augmentation)

    def view(images: jax.Array, seeds: jax.Array) -> jax.Array:
        augmented = jax.vmap(augment)(jax.vmap(jax.random.key)(seeds), images)
        return jnp.where((seeds == 0)[:, None, None, None], images, augmented)

    return view


def _every(rng: np.random.Generator, num_classes: int) -> np.ndarray:
    del rng
    return np.arange(num_classes)


def _with(cfg, *, defense: str | None = None, budget: int | None = None):
    """The config with another defense or budget."""
    changed = cfg.copy_and_resolve_references()
    changed.defense = cfg.defense if defense is None else defense
    changed.attack.budget = budget or cfg.attack.budget
    return changed


def _check_whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f'{name}={value!r}: write a whole number of at least {least}')
