"""The data sets of a run."""

import functools
from typing import Any, NamedTuple

import numpy as np

from ssl_extract import data
from ssl_extract.data import Dataset
from ssl_extract.errors import UserError
from ssl_extract.evaluation import Task, check_task, make_tasks
from ssl_extract.pipeline.context import Run


class Sets(NamedTuple):
    """The data of a run. What describes a set goes into the addresses of stages that use it.

    Attributes:
        victim: what the victim is pretrained on.
        victim_spec: describes it.
        pool: the attacker's own inputs, each content once.
        pool_spec: describes it.
        tasks: the labeled downstream sets; the first is also for fidelity and for users.
        tasks_spec: describes them.
    """

    victim: Dataset
    victim_spec: dict[str, Any]
    pool: Dataset
    pool_spec: dict[str, Any]
    tasks: tuple[Task, ...]
    tasks_spec: list[dict[str, Any]]

    @property
    def num_classes(self) -> int:
        """Of the first task."""
        return self.tasks[0].train.num_classes


def load_sets(run: Run) -> Sets:
    """Loads all sets of a run; a set in use stays in memory.

    Raises:
        UserError: a set, split or task is unknown, or two tasks have the same name.
    """
    c = run.config
    where = {'size': c.data.size or None, 'data_dir': c.data.dir}
    pool = (c.attack.data or c.data.name, c.attack.split)
    victim = (c.data.name, c.victim.split)
    tasks = _make_tasks(tuple(c.evaluation.tasks), **where)
    return Sets(
        _load(*victim, **where),
        _describe(*victim, **where),
        _load_distinct(*pool, **where),
        _describe(*pool, **where),
        tasks,
        [
            {'name': task.name, 'train': data.digest(task.train), 'test': data.digest(task.test)}
            for task in tasks
        ],
    )


def forget() -> None:
    """Lets go of all loaded sets."""
    for function in (_load, _load_distinct, _describe, _make_tasks):
        function.cache_clear()


def pool_order(size: int, seed: int) -> np.ndarray:
    """int32[size], the pool in an order drawn from the seed."""
    return np.random.default_rng((seed, 1)).permutation(size).astype(np.int32)


@functools.lru_cache(maxsize=16)
def _load(spec: str, split: str, *, size: int | None, data_dir: str) -> Dataset:
    return data.load(spec, split, size=size, data_dir=data_dir)


@functools.lru_cache(maxsize=8)
def _load_distinct(spec: str, split: str, *, size: int | None, data_dir: str) -> Dataset:
    return data.distinct(_load(spec, split, size=size, data_dir=data_dir))


@functools.cache
def _describe(spec: str, split: str, *, size: int | None, data_dir: str) -> dict[str, Any]:
    """A set by its name and its content, wherever it lies."""
    content = data.digest(_load(spec, split, size=size, data_dir=data_dir))
    return {'name': spec, 'split': split, 'size': size, 'content': content}


@functools.lru_cache(maxsize=8)
def _make_tasks(specs: tuple[str, ...], *, size: int | None, data_dir: str) -> tuple[Task, ...]:
    if not specs:
        raise UserError('evaluation.tasks is empty: write e.g. (\'digits(train="train")\',)')
    load, field = _load, 'evaluation.tasks'
    tasks = make_tasks(specs, size=size, data_dir=data_dir, load=load, field=field)
    for task in tasks:
        check_task(task)
    return tasks
