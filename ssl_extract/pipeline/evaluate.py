"""The evaluation's stage."""

import functools
import math
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from ssl_extract import data, defenses, encoders, evaluation
from ssl_extract.data import Dataset
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.evaluation import assess, features
from ssl_extract.evaluation.assess import Assessment
from ssl_extract.oracle import MAX_BUDGET
from ssl_extract.oracle.queries import check_granted, plain
from ssl_extract.oracle.store import Bill
from ssl_extract.pipeline import ask, stage
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.services import Service
from ssl_extract.pipeline.sets import ById, Sets
from ssl_extract.pipeline.stage import Form
from ssl_extract.pipeline.victim import Sketch, advice, size
from ssl_extract.runtime import files
from ssl_extract.victims.model import Victim

VICTIM_CHOICES = ('if_free', 'ask', 'no')
_AT_ONCE = 2**28  # bytes of decoded inputs


class Subject(NamedTuple):
    """An encoder or victim to be measured.

    Attributes:
        role: the role of the subject's rows.
        address: the address of the subject's stage.
        encode: `(apply, variables)` of a JAX encoder, or a function on NumPy arrays.
        classifier: `(apply, variables)` of the encoder with the classifier that it was trained
            with; None where it was trained without one.
    """

    role: str
    address: str
    encode: tuple[Callable, Any] | Callable[[np.ndarray], np.ndarray]
    classifier: tuple[Callable, Any] | None = None


def subject_of(result: stage.Trained, *, classifies: bool = False) -> Subject:
    """Returns a trained encoder as a subject.

    Args:
        result: the encoder and the record of its stage.
        classifies: whether the encoder with its heads is a classifier of the first task.
    """
    encoder, record = result
    classifier = encoder.through_heads() if classifies else None
    pair = (encoder.network.apply, encoder.variables)
    return Subject(record.role, record.address, pair, classifier)


def measure(
    run: Run, sets: Sets, subject: Subject, beside: tuple[str, Assessment] | None = None
) -> tuple[str, Assessment]:
    """Measures a subject, and its fidelity to a measured victim.

    Args:
        run: the run.
        sets: the run's data.
        subject: the subject.
        beside: (address, result) of the victim's measurement; None where there is none.

    Returns:
        The address of the measurement and its result.
    """
    c, workspace = run.config.evaluation, run.workspace
    spec = spec_of(run, sets, subject.address, beside and beside[0])

    def make(folder: epath.Path) -> Assessment:
        del folder
        print(f'  evaluate {subject.role}', file=sys.stderr, flush=True)
        return assess.assess(
            subject.encode,
            sets.tasks,
            classifier=subject.classifier,
            victim=beside and beside[1].arrays,
            probe=c.probe,
            neighbors=c.neighbors,
            shots=c.shots,
            mesh=workspace.mesh,
        )

    result = stage.cached(workspace, 'evaluation', spec, make, _form(whole=beside is None))
    return stage.address(workspace, spec), result


def spec_of(run: Run, sets: Sets, address: str, beside: str | None) -> dict[str, Any]:
    """Returns what a measurement depends on.

    Args:
        run: the run.
        sets: the run's data.
        address: the subject's address.
        beside: the address of the victim's measurement, where fidelity is measured.
    """
    c = run.config.evaluation
    return {
        'stage': 'evaluation',
        'encoder': address,
        'fidelity_to': beside,
        'probe': c.probe,
        'neighbors': c.neighbors,
        'shots': c.shots,
        'metrics': list(evaluation.METRICS),
        'tasks': sets.tasks_spec,
    }


def victim_subject(run: Run, sets: Sets, victim: Victim) -> tuple[Subject | None, Bill | None]:
    """Returns the victim as a subject and the bill of its answers.

    The field `evaluation.victim` selects the victims: 'if_free' measures those that are JAX
    functions, whose evaluation sends no query; 'ask' measures every victim; 'no' measures none. The
    evaluation sends every input of the tasks once, on a separate account outside of the attack's
    budget. The victim's rows carry the bill.

    Args:
        run: the run.
        sets: the run's data.
        victim: the run's victim.

    Returns:
        (None, None) where the victim is not measured; the bill is None where no query is sent.
    """
    choice = run.config.evaluation.victim
    if choice == 'no' or (choice == 'if_free' and not victim.traced):
        return None, None
    if victim.applied:
        return Subject('victim', victim.address, victim.applied), None
    encode, bill = _ask_all(run.workspace, sets, victim)
    return Subject('victim', victim.address, encode), bill


def evaluation_inputs(sets: Sets) -> int:
    """Counts the different inputs of the tasks, which are the queries of an evaluation."""
    parts = [part for task in sets.tasks for part in (task.train, task.test)]
    return len(np.unique(np.concatenate([data.hashes(part.inputs) for part in parts])))


def account_spec(address: str) -> dict[str, Any]:
    """Returns what the answers of a victim at an address to the evaluation depend on."""
    return {'stage': 'answers', 'role': 'evaluation', 'victim': address}


def _ask(workspace: Workspace, victim: Victim, inputs: np.ndarray) -> np.ndarray:
    """Returns the victim's answers to decoded inputs, from the evaluation's account."""
    spec = account_spec(victim.address)
    answers = ask.collect(
        workspace,
        Service(victim, defenses.make(''), spec),
        spec,
        jax.random.key(0),
        plain(inputs, decode=_as_it_is),
        budget=MAX_BUDGET,
        batch_size=64 * workspace.mesh.size,
        description='evaluation asks the victim',
    )
    check_granted(victim.address, answers.granted)
    return answers.representations


Asked = tuple[Callable[[np.ndarray], np.ndarray], Bill]
_asked: dict[tuple, Asked] = {}  # the last victim's; reading its answers takes seconds


def _ask_all(workspace: Workspace, sets: Sets, victim: Victim) -> Asked:
    """Sends all inputs of the tasks, and returns the look-up of the answers and the bill."""
    parts = [part for task in sets.tasks for part in (task.train, task.test)]
    key = (workspace.folder, victim.address, *map(ById, parts))
    if key not in _asked:
        known: dict[bytes, np.ndarray] = {}

        def ask_and_keep(inputs: np.ndarray) -> np.ndarray:
            answers = _ask(workspace, victim, inputs)
            known.update(zip(data.hashes(inputs), answers, strict=True))
            return answers

        for part in parts:  # in few calls: each reads all answers that are stored
            each = 4 * math.prod(part.inputs.shape[1:])
            features.represent(ask_and_keep, part, batch_size=max(256, _AT_ONCE // each))
        count = evaluation_inputs(sets)
        _asked.clear()
        _asked[key] = (
            features.looked_up(known),
            Bill(billed=count, unique=count, repeated=0, refused=0),
        )
    return _asked[key]


def _as_it_is(inputs: jax.Array) -> jax.Array:
    return inputs


def _form(whole: bool) -> Form:
    """Returns the files of a measurement: of the victim all arrays, else only the view."""

    def write(folder: epath.Path, result: Assessment) -> None:
        view = {name: result.arrays[name] for name in ('projection', 'labels')}
        files.write_npz(folder / 'arrays.npz', **(result.arrays if whole else view))
        stage.write_json(folder, 'measured.json', {'measured': result.measured})

    def read(folder: epath.Path) -> Assessment:
        measured = stage.read_json(folder, 'measured.json')['measured']
        return Assessment(measured, files.read_npz(folder / 'arrays.npz'))

    return Form('measured.json', write, read)


def check_evaluation(run: Run, sets: Sets, sketch: Sketch) -> None:
    """Checks the labels and sizes of the tasks, and that the pool holds no test input.

    Args:
        run: the run.
        sets: the run's data.
        sketch: the run's victim.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    c, pool = run.config.evaluation, sets.pool
    if c.victim not in VICTIM_CHOICES:
        raise UserError(
            f'evaluation.victim={c.victim!r}: write one of {", ".join(map(repr, VICTIM_CHOICES))}'
        )
    test, mark = sets.tasks[0].test, defenses.mark_of(run.config.defense)
    if mark is not None and isinstance(test.inputs, data.Records):
        raise UserError(
            f'defense={run.config.defense!r}: the test of its mark takes all inputs of {test.name} '
            'at once, and they are read from files: name the first task without records(...)'
        )
    for task in sets.tasks:
        for dataset in (task.train, task.test):
            data.require_labels(dataset)
            if dataset.inputs.shape[1:] != pool.inputs.shape[1:]:
                raise UserError(
                    f'{dataset.name} has inputs of {size(dataset.inputs.shape[1:])} and '
                    f'{pool.name} of {size(pool.inputs.shape[1:])}: '
                    f'{advice(pool.inputs.shape[1:])}'
                )
        _check_disjoint(ById(pool), ById(task.test))
        try_probe(c.probe, task.train)
        evaluation.check_counts(task, neighbors=c.neighbors, shots=c.shots, prefix='evaluation.')
    specs = {sketch.encoder, run.config.attack.encoder or sketch.encoder} - {''}
    widths = {s: encoders.dim(trained.make(s), sketch.input_shape) for s in sorted(specs)}
    for spec, width in widths.items():
        if width < 2:
            raise UserError(
                f'encoder {spec!r}: a representation of 1 coordinate has no direction to compare; '
                'write a wider encoder'
            )
    dim = max([sketch.dim, *widths.values()])
    first = sets.tasks[0].test
    if len(first.inputs) < 2 * (dim + 2):
        raise UserError(
            f'{first.name} has {len(first.inputs)} inputs: to compare '
            f'representations of {dim} coordinates, a test set of {2 * (dim + 2)} is needed'
        )


def try_probe(spec: str, train: Dataset) -> None:
    """Fits the probe on random points with labels of the set, which shows what does not fit.

    Args:
        spec: the spec of the probe.
        train: the training set of a task; up to three labels of each class are taken.

    Raises:
        UserError: an argument of the probe is wrong, or the set has too few examples for it.
    """
    order = np.argsort(train.labels, kind='stable')
    labels = train.labels[order]
    rank = np.arange(len(labels)) - np.searchsorted(labels, labels)  # within the class
    try:
        _fit_random_points(spec, tuple(labels[rank < 3].tolist()), train.num_classes)
    except UserError as error:
        raise UserError(f'evaluation.probe={spec!r} on {train.name}: {error}') from error


@functools.cache
def _fit_random_points(spec: str, labels: tuple[int, ...], num_classes: int) -> None:
    points = np.random.default_rng(0).normal(size=(len(labels), 2))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of a probe that needs more steps: the points are random
        evaluation.PROBES.make(spec)(points, np.array(labels), num_classes)


@functools.lru_cache(maxsize=64)
def _check_disjoint(queries: ById, test: ById) -> None:
    data.check_disjoint(queries.dataset, test.dataset)
