"""Which images a config names: the victim's, the attacker's and its queries, and the tasks'."""

import functools
from typing import Any

import ml_collections
import numpy as np

from ssl_extract import data
from ssl_extract.evaluation.tasks import Task, make_tasks
from ssl_extract.recovery import sybils


@functools.lru_cache(maxsize=16)
def load(name: str, split: str, size: int, folder: str) -> data.Dataset:
    """A data set, kept in memory as long as it is in use."""
    return data.load(name, split, size=size or None, data_dir=folder)


@functools.cache
def describe(name: str, split: str, size: int, folder: str) -> dict[str, Any]:
    """A data set for a stage's hash: its name and its content, wherever it lies."""
    content = data.digest(load(name, split, size, folder))
    return {'name': name, 'split': split, 'size': size, 'content': content}


def load_victim_images(cfg: ml_collections.ConfigDict) -> data.Dataset:
    """The images that the victim is pretrained on."""
    return load(cfg.data.name, cfg.victim.split, cfg.data.size, cfg.data.dir)


def describe_victim_images(cfg: ml_collections.ConfigDict) -> dict[str, Any]:
    """What `load_victim_images` depends on, for a stage's hash."""
    return describe(cfg.data.name, cfg.victim.split, cfg.data.size, cfg.data.dir)


@functools.lru_cache(maxsize=8)
def _distinct(name: str, split: str, size: int, folder: str) -> data.Dataset:
    return data.distinct(load(name, split, size, folder))


def load_pool(cfg: ml_collections.ConfigDict) -> data.Dataset:
    """The attacker's own images, each content once."""
    return _distinct(
        cfg.attack.data or cfg.data.name, cfg.attack.split, cfg.data.size, cfg.data.dir
    )


def input_shape(cfg: ml_collections.ConfigDict) -> tuple[int, ...]:
    """(H, W, 3) of the attacker's images."""
    return load_pool(cfg).inputs.shape[1:]


def order(cfg: ml_collections.ConfigDict) -> np.ndarray:
    """int32[N], the pool in an order drawn from the seed."""
    images = load_pool(cfg).inputs
    return np.random.default_rng((cfg.seed, 1)).permutation(len(images)).astype(np.int32)


def num_images(cfg: ml_collections.ConfigDict, stored: int) -> int:
    """How many images the budget pays for at `stored` views each; 0 views: the whole pool."""
    if cfg.attack.accounts > 1:
        return sybils.num_images(cfg.attack.budget, cfg.attack.accounts, cfg.attack.overlap)
    return -(-cfg.attack.budget // stored) if stored else len(load_pool(cfg).inputs)


def load_own(cfg: ml_collections.ConfigDict) -> data.Dataset:
    """What the attacker can train on without a victim: as many of its images as the budget says.

    Under plan `online`, which shows the surrogate the whole pool, all of them.
    """
    pool = load_pool(cfg)
    rows = order(cfg)[: _own(cfg)]
    labels = None if pool.labels is None else pool.labels[rows]
    return pool._replace(inputs=pool.inputs[rows], labels=labels)


def _own(cfg: ml_collections.ConfigDict) -> int:
    whole = len(load_pool(cfg).inputs)
    return whole if cfg.attack.plan == 'online' else min(whole, cfg.attack.budget)


def load_tasks(cfg: ml_collections.ConfigDict) -> list[Task]:
    """The downstream sets that `evaluation.tasks` names, as `'cifar10(train="train[:10000]")'`.

    Raises:
        UserError: a task has an unknown argument, or two tasks have the same name.
    """
    return list(
        make_tasks(
            cfg.evaluation.tasks,
            size=cfg.data.size or None,
            data_dir=cfg.data.dir,
            load=lambda spec, split, *, size, data_dir: load(spec, split, size or 0, data_dir),
            field='evaluation.tasks',
        )
    )


def describe_pool(cfg: ml_collections.ConfigDict) -> dict[str, Any]:
    """What `load_pool` depends on, for a stage's hash."""
    name = cfg.attack.data or cfg.data.name
    return describe(name, cfg.attack.split, cfg.data.size, cfg.data.dir)


def describe_tasks(cfg: ml_collections.ConfigDict) -> list[dict[str, Any]]:
    """What `load_tasks` depends on, for a stage's hash."""
    return [
        {'name': task.name, 'train': data.digest(task.train), 'test': data.digest(task.test)}
        for task in load_tasks(cfg)
    ]


def describe_own(cfg: ml_collections.ConfigDict) -> dict[str, Any]:
    """What `load_own` depends on, for a stage's hash."""
    return {**describe_pool(cfg), 'seed': cfg.seed, 'first': _own(cfg)}
