"""The evaluation's stage."""

import functools
import sys
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
from ssl_extract.oracle.store import Bill, plain
from ssl_extract.pipeline import ask, stage
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.owner import Service
from ssl_extract.pipeline.sets import Sets
from ssl_extract.pipeline.stage import Form
from ssl_extract.pipeline.victim import Sketch, size
from ssl_extract.runtime import files
from ssl_extract.victims.model import Victim

VICTIM_CHOICES = ('if_free', 'ask', 'no')


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


def subject_of(result: stage.Trained) -> Subject:
    """Returns a trained encoder as a subject."""
    encoder, record = result
    classifier = encoder.through_heads() if 'classifier' in dict(encoder.heads) else None
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
    if victim.encoder is not None:
        pair = (victim.encoder.network.apply, victim.encoder.variables)
        return Subject('victim', victim.address, pair), None
    if victim.traced:
        pair = (_call, victim.answer)
        return Subject('victim', victim.address, pair), None
    bill = _ask_all(run.workspace, sets, victim)
    encode = functools.partial(_ask, run.workspace, victim)
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
    return answers.representations


def _ask_all(workspace: Workspace, sets: Sets, victim: Victim) -> Bill:
    """Sends all inputs of the tasks as the evaluation will, and returns the bill."""
    for task in sets.tasks:
        for part in (task.train, task.test):
            features.represent(functools.partial(_ask, workspace, victim), part)
    count = evaluation_inputs(sets)
    return Bill(billed=count, unique=count, repeated=0, refused=0)


def _as_it_is(inputs: jax.Array) -> jax.Array:
    return inputs


def _call(answer: Callable, inputs: jax.Array) -> jax.Array:
    return answer(inputs)


def _form(whole: bool) -> Form:
    """Returns the files of a measurement: of the victim all arrays, else only the view."""

    def write(folder: epath.Path, result: Assessment) -> None:
        view = {name: result.arrays[name] for name in ('projection', 'labels')}
        files.write_npz(folder / 'arrays.npz', **(result.arrays if whole else view))
        files.write_json(folder / 'measured.json', {'measured': result.measured})

    def read(folder: epath.Path) -> Assessment:
        measured = files.read_json(folder / 'measured.json')['measured']
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
    try_probe(c.probe)
    if c.victim not in VICTIM_CHOICES:
        raise UserError(
            f'evaluation.victim={c.victim!r}: write one of {", ".join(map(repr, VICTIM_CHOICES))}'
        )
    for task in sets.tasks:
        for dataset in (task.train, task.test):
            data.require_labels(dataset)
            if dataset.inputs.shape[1:] != pool.inputs.shape[1:]:
                raise UserError(
                    f'{dataset.name} has inputs of {size(dataset.inputs.shape[1:])} and '
                    f'{pool.name} of {size(pool.inputs.shape[1:])}: set data.size'
                )
        _check_disjoint(_ById(pool), _ById(task.test))
        train, count = task.train, len(task.train.inputs)
        if c.neighbors > count:
            raise UserError(
                f'evaluation.neighbors={c.neighbors}: {train.name} has only {count} images'
            )
        per_class = np.bincount(train.labels, minlength=train.num_classes)
        if per_class.min() < c.shots:
            raise UserError(
                f'evaluation.shots={c.shots}: {train.name} has {per_class.min()} '
                f'images of class {per_class.argmin()}; write fewer, or a larger split'
            )
    specs = {sketch.encoder, run.config.attack.encoder or sketch.encoder} - {''}
    dim = max([sketch.dim, *(encoders.dim(trained.make(s), sketch.input_shape) for s in specs)])
    first = sets.tasks[0].test
    if len(first.inputs) < 2 * (dim + 2):
        raise UserError(
            f'{first.name} has {len(first.inputs)} images: to compare '
            f'representations of {dim} coordinates, a test set of {2 * (dim + 2)} is needed'
        )


@functools.cache
def try_probe(spec: str) -> None:
    """Fits the probe on a handful of points, which shows wrong arguments at once.

    Raises:
        UserError: the spec does not parse, or an argument is wrong.
    """
    points = np.random.default_rng(0).normal(size=(20, 2))
    evaluation.PROBES.make(spec)(points, np.arange(20) % 2, 2)


class _ById:
    """A data set as the key of a cache, compared by the identity of its inputs."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.dataset.inputs is other.dataset.inputs

    def __hash__(self) -> int:
        return id(self.dataset.inputs)


@functools.lru_cache(maxsize=64)
def _check_disjoint(queries: _ById, test: _ById) -> None:
    data.check_disjoint(queries.dataset, test.dataset)
