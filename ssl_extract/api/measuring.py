"""Evaluation and results, for the facade."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from ssl_extract import data, report
from ssl_extract.api import inputs as inputs_lib
from ssl_extract.api.asking import Answers, collect, make_oracle
from ssl_extract.api.inputs import Labeled
from ssl_extract.data import Dataset
from ssl_extract.encoders import check_vocabulary
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.evaluation import Task, check_counts, check_task, presentation
from ssl_extract.evaluation.assess import assess
from ssl_extract.evaluation.features import looked_up, represent
from ssl_extract.evaluation.metrics import names_of
from ssl_extract.oracle import MAX_BUDGET
from ssl_extract.oracle.queries import check_granted
from ssl_extract.runtime import parallel
from ssl_extract.victims.model import Victim


def evaluate(
    encoder: Encoder,
    *,
    train: Labeled,
    test: Labeled,
    victim: Victim | Encoder | Callable[[jax.Array], jax.Array] | None = None,
    answers: Answers | None = None,
    name: str = 'task',
    folder: epath.PathLike | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Measures an encoder on a labeled task, and its fidelity to a victim.

    A victim that is no JAX function is sent each different input of the task once, on a separate
    account. The column `queries_billed` of the victim's rows is the cost. A warning counts the test
    images that have a near-duplicate in `train` or among the answers; see `data.count_near`.

    Args:
        encoder: the encoder to measure.
        train: (inputs [N, ...], labels int[N]) that classifiers are fitted on.
        test: (inputs, labels) that the classifiers are tested on; no input may be among `train`.
        victim: a victim to measure too, and to compare the encoder with.
        answers: the answers that the encoder was trained on: the encoder's rows carry their bill,
            and no test input may be among the queries.
        name: the task's name.
        folder: keeps the victim's answers, so that no answer is paid twice; the answers lie in the
            subfolder 'evaluation', apart from an attacker's account.
        **settings: probe, neighbors, shots and metrics of `evaluation.assess`.

    Returns:
        Rows as in results.jsonl: role, task, metric, value, ci_low, ci_high, n and the bill.

    Raises:
        UserError: sets overlap, do not fit each other, the encoder or the victim, or the training
            inputs lack a class of the test inputs.
    """
    if not isinstance(encoder, Encoder):
        raise UserError(
            f'encoder: {type(encoder).__name__} is none: give what steal, pretrain or load returned'
        )
    parts = [
        inputs_lib.dataset_of(pair, f'{name}/{part}', labeled=True)
        for part, pair in (('train', train), ('test', test))
    ]
    classes = max(part.num_classes for part in parts)
    task = Task(name, *(part._replace(num_classes=classes) for part in parts))
    check_task(task)
    _check_counts(task, **settings)
    _warn_of_near_duplicates(task.train, task.test)
    inputs_lib.check_shape(task.train, encoder.input_shape, 'the encoder')
    check_vocabulary('encoder', encoder.spec, task.train, task.test)
    bill = {}
    if answers is not None:
        queries = Dataset(answers.inputs, name='answers')
        data.check_disjoint(queries, task.test)
        _warn_of_near_duplicates(queries, task.test)
        bill = answers.bill.columns()
    rows, arrays, mesh = [], None, parallel.data_mesh()
    if victim is not None:
        encode, cost = _encode_of(victim, task, folder)
        measured, arrays = assess(encode, [task], mesh=mesh, **settings)
        rows = _rows('victim', cost, measured)
    pair = (encoder.network.apply, encoder.variables)
    measured, _ = assess(pair, [task], victim=arrays, mesh=mesh, **settings)
    return rows + _rows('surrogate', bill, measured)


def results(*workdirs: epath.PathLike) -> Any:
    """Returns the rows of all finished runs of workdirs.

    Args:
        *workdirs: folders of experiments.

    Returns:
        A pandas frame where pandas is installed, else dicts.

    Raises:
        UserError: no run is finished in the workdirs, or the files of a run are damaged.
    """
    runs = report.read_runs(*workdirs)
    if not runs:
        raise UserError(f'no run is finished in {", ".join(map(str, workdirs)) or "no folder"}')
    rows = report.tidy(runs)
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)


def _encode_of(victim: Any, task: Task, folder: epath.PathLike | None) -> tuple[Any, dict]:
    """Returns the `encode` of `assess` for a victim, and the bill as columns of a row."""
    victims_oracle = make_oracle(victim, budget=MAX_BUDGET)
    inputs_lib.check_shape(task.train, victims_oracle.about.input_shape, 'the victim')
    if isinstance(victim, Encoder):
        return (victim.network.apply, victim.variables), {}
    if victims_oracle.traced:
        answer = victim.answer if isinstance(victim, Victim) else jax.tree_util.Partial(victim)
        return (_call, answer), {}
    seen = np.concatenate([_decoded(part) for part in (task.train, task.test)])
    where = None if folder is None else epath.Path(folder) / 'evaluation'
    answers = collect(victims_oracle, Dataset(seen, decode='identity'), folder=where)
    check_granted(victims_oracle.about.victim, answers.granted)
    hashes = data.hashes(answers.inputs)
    by_content = dict(zip(hashes, answers.representations, strict=True))
    return looked_up(by_content), answers.bill.columns()


def _check_counts(
    task: Task, neighbors: int = 20, shots: int = 5, metrics: Any = None, **others: Any
) -> None:
    """Checks the sizes that the chosen metrics need, before a victim is paid."""
    del others
    chosen = names_of(metrics)
    check_counts(
        task,
        neighbors=neighbors if 'knn' in chosen else 0,
        shots=shots if 'fewshot' in chosen else 0,
    )


def _warn_of_near_duplicates(first: Dataset, test: Dataset) -> None:
    count = data.count_near(first, test)
    if count:
        warnings.warn(
            f'{count} of the {len(test.inputs)} inputs of {test.name} have a near-duplicate in '
            f'{first.name} (thumbnails that correlate by {data.NEAR} or more)',
            stacklevel=3,
        )


def _decoded(part: Dataset) -> np.ndarray:
    """Returns the inputs as an evaluation sends them: decoded by the batch, bit for bit."""
    batches: list[np.ndarray] = []

    def keep(inputs: np.ndarray) -> np.ndarray:
        batches.append(inputs)
        return np.zeros((len(inputs), 1))

    represent(keep, part)
    return np.concatenate(batches)


def _call(answer: Callable, inputs: jax.Array) -> jax.Array:
    return answer(inputs)


def _rows(role: str, bill: dict[str, int], measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{'role': role, **bill, **presentation(row['metric']), **row} for row in measured]
