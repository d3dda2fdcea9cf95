"""The data sets of a run."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ssl_extract import attacks, augment, data
from ssl_extract.data import Dataset, loading
from ssl_extract.errors import UserError
from ssl_extract.evaluation import Task, make_tasks
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
    for cache in (_load_sets, _load, _load_distinct, _count, _check_kind):
        cache.cache_clear()


def check_ranges(run: Run, sets: Sets) -> None:
    """Checks that images which are augmented lie in [0, 1], and waveforms in [-1, 1].

    Args:
        run: the run.
        sets: the run's data.

    Raises:
        UserError: one line that names the field, the set and its values.
    """
    c = run.config
    augmented = [
        ('attack.query_augmentation', c.attack.query_augmentation, sets.pool),
        ('attack.student_augmentation', c.attack.student_augmentation, sets.pool),
    ]
    if c.victim.source == 'pretrain':
        augmented.append(('victim.augmentation', c.victim.augmentation, sets.victim))
    if c.baselines.scratch_epochs:
        augmented.append(('victim.augmentation', c.victim.augmentation, sets.pool))
    if attacks.PLANS.traits(c.attack.plan).changes:
        data.check_unpadded(sets.pool, f'attack.plan={c.attack.plan!r}')
    for field, spec, dataset in augmented:
        if spec not in ('', 'none'):
            _check_kind(ById(dataset), augment.takes(spec), f'{field}={spec!r}')


def notes_of(run: Run, sets: Sets, seen: bool = False) -> list[str]:
    """Says which test inputs the victim's pretraining holds, and how many have near-duplicates.

    Equal inputs in the two sets of a task, or in the pool and a test set, are refused before.

    Args:
        run: the run.
        sets: the run's data.
        seen: whether a loaded victim is known to be trained on the victim's set.
    """
    pretrained = seen or run.config.victim.source == 'pretrain'
    notes = []
    for task in sets.tasks:
        notes += _copies(sets.victim, task) if pretrained else []
        known = {'the inputs of the pretraining': sets.victim} if pretrained else {}
        known |= {'the training inputs': task.train, 'the queries': sets.pool}
        notes += _near_duplicates(known, task)
    return notes


def pool_order(size: int, seed: int) -> np.ndarray:
    """Returns int32[size], the order of the pool that is drawn from the seed.

    Args:
        size: the number of inputs.
        seed: the seed of the run.
    """
    return np.random.default_rng((seed, 1)).permutation(size).astype(np.int32)


def _copies(pretraining: Dataset, task: Task) -> list[str]:
    test = task.test
    try:
        count = _count(data.count_shared, ById(pretraining), ById(test))
    except UserError as error:
        return [f'victim: {error}']
    if not count:
        return []
    return [
        f'{count} of the {len(test.inputs)} inputs of {test.name} are among those of '
        f'{pretraining.name}, on which the victim is pretrained: on {task.name} the victim is '
        'measured on inputs that it has seen, without their labels'
    ]


def _near_duplicates(known: dict[str, Dataset], task: Task) -> list[str]:
    test, notes = task.test, []
    for role, dataset in known.items():
        count = _count(data.count_near, ById(dataset), ById(test))
        streamed = [s.name for s in (dataset, test) if isinstance(s.inputs, data.Records)]
        if streamed:
            notes.append(
                f'{test.name}: near-duplicates among {role} are not looked for, since '
                f'{streamed[0]} is not in memory; copies are'
            )
        elif count is None:
            return [f'{test.name}: near-duplicates are looked for in images of 8 x 8 or more only']
        elif count:
            notes.append(
                f'{count} of the {len(test.inputs)} inputs of {test.name} have a near-duplicate '
                f'among {role}, {dataset.name} (thumbnails that correlate by {data.NEAR} or more)'
            )
    return notes


class ById:
    """A data set as the key of a cache, compared by the identity of its inputs."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and self.dataset.inputs is other.dataset.inputs

    def __hash__(self) -> int:
        return id(self.dataset.inputs)


@functools.lru_cache(maxsize=64)
def _check_kind(dataset: ById, kind: str, user: str) -> None:
    data.check_kind(dataset.dataset, kind, user)


@functools.lru_cache(maxsize=64)
def _count(count: Callable[[Dataset, Dataset], int | None], first: ById, second: ById) -> Any:
    return count(first.dataset, second.dataset)


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
    return make_tasks(specs, size=size, data_dir=data_dir, load=load, field=field)


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
