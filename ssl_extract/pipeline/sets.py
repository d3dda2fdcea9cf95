"""The data sets of a run."""

import functools
from typing import Any, NamedTuple

import numpy as np

from ssl_extract import data
from ssl_extract.data import Dataset, loading
from ssl_extract.errors import UserError
from ssl_extract.evaluation import Task, check_task, make_tasks
from ssl_extract.pipeline.context import Run


class Sets(NamedTuple):
    """The data of a run; the specs go into the addresses of stages.

    Attributes:
        victim: the set of the victim's pretraining.
        victim_spec: the description of the victim's set.
        pool: the attacker's inputs, each content once.
        pool_spec: the description of the pool.
        tasks: the labeled downstream sets; the first is also for fidelity and for users.
        tasks_spec: the descriptions of the tasks: dicts of `name`, `train` and `test`.
    """

    victim: Dataset
    victim_spec: dict[str, Any]
    pool: Dataset
    pool_spec: dict[str, Any]
    tasks: tuple[Task, ...]
    tasks_spec: tuple[dict[str, Any], ...]

    @property
    def num_classes(self) -> int:
        """Returns the number of classes of the first task."""
        return self.tasks[0].train.num_classes


def load_sets(run: Run) -> Sets:
    """Loads all sets of a run; sets in use stay in memory.

    Raises:
        UserError: a set, split or task is unknown, or two tasks have the same name.
    """
    c = run.config
    return _load_sets(
        (c.data.name, c.victim.split),
        (c.attack.data or c.data.name, c.attack.split),
        tuple(c.evaluation.tasks),
        size=c.data.size or None,
        data_dir=c.data.dir,
    )


def forget() -> None:
    """Forgets the sets in memory: files may have changed since they were read."""
    for cache in (_load_sets, _load, _load_distinct):
        cache.cache_clear()


def pool_order(size: int, seed: int) -> np.ndarray:
    """Returns int32[size], the order of the pool that is drawn from the seed.

    Args:
        size: the number of inputs.
        seed: the seed of the run.
    """
    return np.random.default_rng((seed, 1)).permutation(size).astype(np.int32)


@functools.lru_cache(maxsize=8)
def _load_sets(
    victim: tuple[str, str], pool: tuple[str, str], tasks: tuple[str, ...], **where: Any
) -> Sets:
    loaded_tasks = _make_tasks(tasks, **where)
    described = [_describe_task(spec, task) for spec, task in zip(tasks, loaded_tasks, strict=True)]
    return Sets(
        _load(*victim, **where),
        _describe(_load(*victim, **where)),
        _load_distinct(*pool, **where),
        _describe(_load(*pool, **where)),
        loaded_tasks,
        tuple(described),
    )


@functools.lru_cache(maxsize=16)
def _load(spec: str, split: str, *, size: int | None, data_dir: str) -> Dataset:
    return data.load(spec, split, size=size, data_dir=data_dir)


@functools.lru_cache(maxsize=8)
def _load_distinct(spec: str, split: str, *, size: int | None, data_dir: str) -> Dataset:
    return data.distinct(_load(spec, split, size=size, data_dir=data_dir))


def _make_tasks(specs: tuple[str, ...], *, size: int | None, data_dir: str) -> tuple[Task, ...]:
    if not specs:
        raise UserError('evaluation.tasks is empty: write e.g. (\'digits(train="train")\',)')
    load, field = _load, 'evaluation.tasks'
    tasks = make_tasks(specs, size=size, data_dir=data_dir, load=load, field=field)
    for task in tasks:
        check_task(task)
    return tasks


def _describe(dataset: Dataset) -> dict[str, Any]:
    """Describes a set by its content and by the names of its loader and decoder.

    The folder of the files does not matter, unless the name holds the folder.
    """
    return {'name': dataset.name, 'decode': dataset.decode, 'content': data.digest(dataset)}


def _describe_task(spec: str, task: Task) -> dict[str, Any]:
    """Describes a task by its name in the rows and its two sets."""
    made_by = {'task': loading.parse_spec(spec, 'task')[0]}
    parts = {'train': task.train, 'test': task.test}
    return {'name': task.name} | {name: _describe(s) | made_by for name, s in parts.items()}
