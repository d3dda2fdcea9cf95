"""Downstream tasks and their registry.

    digits(train="train[:100]")
    digits(name="few", train="train[:10]")
    folder(path="photos", train="all[:80%]", test="all[80%:]")
    cifar10:3.0.2(train="train[:10000]")

A task that is not two slices of one set is a registered factory, with the parameters `size` and
`data_dir` where they are needed:

    @evaluation.register_task('my_task')
    def my_task(*, size: int | None) -> evaluation.Task: ...
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ssl_extract import data
from ssl_extract.data import loading
from ssl_extract.errors import UserError
from ssl_extract.registry import Registry

TASKS = Registry('task')
register_task = TASKS.register


class Task(NamedTuple):
    """A labeled downstream task.

    Attributes:
        name: in the rows; the tasks of a run have different names.
        train: the set that classifiers are fitted on.
        test: the set that classifiers are tested on.
        before: [P, ...], the first test inputs without the change that the task is about, which a
            report shows beside those with it; None of a task without such a change.
    """

    name: str
    train: data.Dataset
    test: data.Dataset
    before: np.ndarray | None = None


def make_tasks(
    specs: Iterable[str],
    *,
    size: int | None = None,
    data_dir: str = '',
    load: Callable[..., data.Dataset] = data.load,
    field: str = 'tasks',
) -> tuple[Task, ...]:
    """Makes the tasks that `specs` describe.

    Args:
        specs: registered tasks, or data sets with the splits `train="train"` and `test="test"`;
            `name="..."` names the task, which has the name of the set otherwise. Where the set has
            an argument `name`, as `records` does, it is that of both.
        size: side of images in pixels, see `data.load`.
        data_dir: the folder of the prepared TFDS sets.
        load: loads a data set, `(spec, split, *, size, data_dir) -> Dataset`.
        field: the field of the specs, for an error message.

    >>> few, whole = make_tasks(['digits(name="few", train="train[:100]")', 'digits'])
    >>> few.name, few.train.name, whole.name
    ('few', 'digits/train[:100]', 'digits')

    Raises:
        UserError: a task does not exist, has an argument that does not fit, lacks labels, has two
            numbers of classes, or fails `check_task`; or two tasks have one name.
    """
    tasks: dict[str, Task] = {}
    for spec in specs:
        task = make_task(spec, size=size, data_dir=data_dir, load=load)
        if task.name in tasks:
            raise UserError(
                f'{field} has {task.name!r} twice: write name="..." in one of them to tell them '
                'apart'
            )
        tasks[task.name] = task
    return tuple(tasks.values())


def make_task(
    spec: str,
    *,
    size: int | None = None,
    data_dir: str = '',
    load: Callable[..., data.Dataset] = data.load,
) -> Task:
    """Makes one task; see `make_tasks`."""
    head, args, kwargs = loading.parse_spec(spec, 'task')
    name = kwargs.pop('name', None)
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise UserError(f'task {spec!r}: name={name!r}: write a text in quotation marks')
    if head in TASKS:
        registered = loading.render_spec(head, args, kwargs)
        task = TASKS.make(registered, size=size, data_dir=data_dir)
        if not isinstance(task, Task):
            raise UserError(f'task {spec!r}: its factory gives {type(task)}, not a Task')
        sets = {'train': data.checked(task.train), 'test': data.checked(task.test)}
        task = task._replace(name=name or task.name, **sets)
    else:
        splits = {part: kwargs.pop(part, part) for part in ('train', 'test')}
        if name is not None and _takes_name(head, args):
            kwargs['name'] = name
        _check_arguments(spec, head, kwargs)
        source = loading.render_spec(head, args, kwargs)
        train, test = (load(source, s, size=size, data_dir=data_dir) for s in splits.values())
        task = Task(name or head, train, test)
    check_task(task)
    return task


def check_task(task: Task) -> None:
    """Checks that a task can be learned, and that what it measures was not learned by heart.

    Classes that occur in neither set are no obstacle.

    Raises:
        UserError: a set has no labels, the numbers of classes differ, the training inputs are of
            one class, a class of the test set has no training input, or an input is by content in
            both sets; the message names the sets.
    """
    _check_labels(task)
    data.check_train_test(task.train, task.test)


def check_counts(task: Task, *, neighbors: int, shots: int, prefix: str = '') -> None:
    """Checks that a task has as many training inputs as its metrics need.

    Args:
        task: the task.
        neighbors: k of the kNN classifier; 0 for none.
        shots: labeled inputs per class of the few-shot probe; 0 for none.
        prefix: before the names of the two in an error message.

    Raises:
        UserError: there are fewer neighbors, or fewer inputs of a class that occurs.
    """
    train, count = task.train, len(task.train.inputs)
    if neighbors > count:
        raise UserError(f'{prefix}neighbors={neighbors}: {train.name} has only {count} inputs')
    classes, per_class = np.unique(train.labels, return_counts=True)
    if per_class.min() < shots:
        raise UserError(
            f'{prefix}shots={shots}: {train.name} has {per_class.min()} inputs of class '
            f'{classes[per_class.argmin()]}; write fewer, or a larger split'
        )


def _takes_name(head: str, args: tuple) -> bool:
    """Returns whether `name` is an argument of the data set, as of 'records(name="a_set")'."""
    factory = data.DATASETS.get(head)
    parameters = inspect.signature(factory).parameters if factory else {}
    return 'name' in parameters and 'name' not in loading.written(head, args, {})


def _check_arguments(spec: str, head: str, kwargs: dict[str, Any]) -> None:
    """Refuses arguments that are parameters of neither tasks nor the data set."""
    factory = data.DATASETS.get(head)
    parameters = inspect.signature(factory).parameters if factory else {}
    unknown = kwargs.keys() - parameters
    if unknown:
        raise UserError(
            f'task {spec!r}: unknown argument {min(unknown)!r}: it takes (train="train", '
            f'test="test"), name={head!r} and the arguments of its data set'
        )


def _check_labels(task: Task) -> None:
    for dataset in (task.train, task.test):
        data.require_labels(dataset)
    counts = (task.train.num_classes, task.test.num_classes)
    if counts[0] != counts[1]:
        raise UserError(
            f'task {task.name!r}: {task.train.name} has {counts[0]} classes and {task.test.name} '
            f'has {counts[1]}: take both from one set'
        )
    learned = np.unique(task.train.labels)
    if len(learned) < 2:
        raise UserError(
            f'task {task.name!r}: {task.train.name} has inputs of class {learned[0]} only: take a '
            'larger slice, or another set'
        )
    unknown = np.setdiff1d(task.test.labels, learned)
    if len(unknown):
        raise UserError(
            f'task {task.name!r}: {task.train.name} has no input of class {unknown[0]}, and '
            f'{task.test.name} has {np.sum(task.test.labels == unknown[0])}: take a larger slice '
            'for training'
        )
