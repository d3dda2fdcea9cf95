"""Storing of a finished victim as one file, with its results."""

import os
import re
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from etils import epath

from ssl_extract import data
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.evaluation import features, intervals
from ssl_extract.pipeline import evaluate, owner, provenance, run, stage, victim
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.sets import Sets, load_sets
from ssl_extract.runtime import files
from ssl_extract.victims import shelf, stored
from ssl_extract.victims.stored import Stored

SAMPLE = 200  # test inputs beside a victim
MOST_MOVED = 1e-3  # by int16: the change of an answer, as a share of its size


class Sample(NamedTuple):
    """Some of the test inputs of the first task.

    Attributes:
        task: the task's name.
        dataset: the inputs with their labels.
    """

    task: str
    dataset: data.Dataset


def store(
    cfg: ml_collections.ConfigDict,
    name: str,
    *,
    workdir: epath.PathLike,
    fixed: tuple[str, ...] = (),
    command: str = '',
    run_index: int | None = None,
    int16: bool = False,
) -> epath.Path:
    """Writes the finished victim of an experiment to one file, and returns the file's path.

    The victim is measured as in a run, where that is not done yet. Beside the file lies a sample of
    the test inputs of the first task. Of a victim that comes with the package, the table in the
    folder's README.md is written anew.

    Args:
        cfg: as made by an experiment file from `config.base()`.
        name: of the victim, or the path of a .safetensors file.
        workdir: the folder in which the victim was trained.
        fixed: fields that were given on the command line; they win over `cfg.runs`.
        command: the command line that trained the victim.
        run_index: the number of the run whose victim is meant; None where all runs have one victim.
        int16: whether to store the networks in half the bytes; see `stored.arrays_of`.

    Raises:
        UserError: something in the config is wrong, the workdir holds no finished victim, the runs
            have several, the file would be too large, or int16 moves the answers.
    """
    path = stored.path_of(name)
    current, sets = _only(run.pick(run.prepare(cfg, workdir, fixed), run_index))
    model, record = victim.victim_of(current, sets)
    dtype, ours = 'int16' if int16 else 'float32', stored.is_name(name)
    if ours:
        check_size(name, model.encoder, dtype)
    sample = _sample_of(sets)
    encoder, moved = as_stored(model.encoder, dtype, sample)
    trained = stage.Trained(model.encoder, record)
    _, assessment = evaluate.measure(current, sets, evaluate.subject_of(trained))
    probe = owner.fit_classifier(current.workspace, owner.owner_of(current, sets, model))
    about = {'dtype': dtype, 'moved': moved, 'trained': _training(current, sets, record)}
    about |= {'command': shortened(command), 'versions': provenance.versions()}
    about['evaluation'] = _evaluation(current, sets)
    about['rows'] = assessment.measured
    about['sample'] = _measured(encoder, probe, sample) | {'file': _write_sample(path, sample)}
    stored.write(path, Stored(model.encoder, probe, about))
    if ours:
        shelf.write_table(path.parent)
    return path


def _only(runs: list[Run]) -> tuple[Run, Sets]:
    """Returns a run of the one finished victim of all runs, and its sets."""
    found = {}
    for current in runs:
        source = current.config.victim.source
        if source != 'pretrain':
            raise UserError(
                f'victim.source={source!r}: only a victim that its workdir pretrained is stored; '
                "write victim.source='pretrain'"
            )
        sets = load_sets(current)
        found.setdefault(victim.address_of(current, sets), (current, sets))
    if len(found) > 1:
        raise UserError(
            f'the runs have {len(found)} victims: name one by --run_index=..., as --dry_run '
            'numbers them'
        )
    ((address, (current, sets)),) = found.items()
    folder = current.workspace.folder
    if not (folder / 'victim' / address / 'meta.json').exists():
        raise UserError(
            f'workdir={folder}: there is no finished victim of this config (victim/{address}); '
            'give the flags of the command that trained it, or run that first'
        )
    return current, sets


def check_size(name: str, encoder: Encoder, dtype: str) -> None:
    """Checks that networks are small enough for a file that comes with the package.

    Args:
        name: of the victim.
        encoder: with its heads.
        dtype: of the file.

    Raises:
        UserError: the networks take more than `stored.MOST_BYTES`.
    """
    size = sum(array.nbytes for array in stored.arrays_of(encoder, dtype).values())
    if size > stored.MOST_BYTES:
        smaller = 'write --int16, or ' if dtype == 'float32' else 'write '
        raise UserError(
            f'store {name}: the networks take {size / 1e6:.1f} MB as {dtype}, and a victim that '
            f'comes with the package {stored.MOST_BYTES / 1e6:.0f} MB at most: {smaller}the path '
            f'of a {stored.SUFFIX} file elsewhere'
        )


def _sample_of(sets: Sets) -> Sample:
    """Returns rows from the whole test set, which may be sorted by class."""
    task = sets.tasks[0]
    rows = np.unique(np.linspace(0, len(task.test.inputs) - 1, SAMPLE).round().astype(int))
    labels = data.require_labels(task.test)[rows]
    return Sample(task.name, task.test._replace(inputs=task.test.inputs[rows], labels=labels))


def as_stored(encoder: Encoder, dtype: str, sample: Sample) -> tuple[Encoder, float]:
    """Returns the encoder as the file will hold it, and the largest change of an answer by that.

    Answers are representations and projections.

    Args:
        encoder: with its heads.
        dtype: of the file.
        sample: the inputs.

    Raises:
        UserError: an answer changes by more than MOST_MOVED of its size.
    """
    if dtype == 'float32':
        return encoder, 0.0
    rounded = stored.rounded(encoder, dtype)
    moved = max(
        _movement((encoder.network.apply, encoder.variables), rounded.variables, sample),
        _movement(encoder.through_heads(), rounded.through_heads()[1], sample),
    )
    if not moved <= MOST_MOVED:
        raise UserError(
            f'--int16 moves an answer by {moved:.1e} of its size, and {MOST_MOVED:.0e} is the '
            'most: leave the flag out'
        )
    return rounded, moved


def _movement(encode: tuple[Callable, Any], variables: Any, sample: Sample) -> float:
    """Returns the largest change of an answer by other variables, as a share of its size."""
    before = features.represent(encode, sample.dataset)
    after = features.represent((encode[0], variables), sample.dataset)
    sizes = np.linalg.norm(before, axis=1)
    return float((np.linalg.norm(after - before, axis=1) / sizes).max())


def _training(current: Run, sets: Sets, record: stage.StageRecord) -> dict[str, Any]:
    """Describes the training: its data, its fields and its cost."""
    spec = sets.victim_spec
    return {
        'data': sets.victim.name,
        'inputs': len(sets.victim.inputs),
        'content': spec['content'],
        **victim.pretraining_spec(current.config.victim.to_dict()),
        'seconds': round(record.seconds, 2),
        'flops': record.flops,
    }


def _evaluation(current: Run, sets: Sets) -> dict[str, Any]:
    """Returns the fields that the rows depend on, and the number of labels of the first task."""
    fields = current.config.evaluation.to_dict()
    labels = len(sets.tasks[0].train.inputs)
    return {name: fields[name] for name in ('tasks', 'probe', 'neighbors', 'shots')} | {
        'labels': labels
    }


def _measured(encoder: Encoder, probe: dict[str, np.ndarray], sample: Sample) -> dict[str, Any]:
    """Measures the stored encoder with its probe on the sample."""
    predictions = stored.predict(Stored(encoder, probe, {}), sample.dataset)
    measured = intervals.accuracy(predictions, sample.dataset.labels)
    return {'task': sample.task, 'decode': sample.dataset.decode, **measured._asdict()}


def _write_sample(path: epath.Path, sample: Sample) -> str:
    """Writes the sample beside the victim, once for all victims of a task; returns its name."""
    dataset = sample.dataset
    name = f'{re.sub(r"[^a-z0-9]+", "_", sample.task.lower())[:40]}_{data.digest(dataset)[:8]}.npz'
    if not (path.parent / name).exists():
        files.write_npz(path.parent / name, inputs=dataset.inputs, labels=dataset.labels)
    return name


def shortened(command: str) -> str:
    """Shortens the absolute paths of a command to their last parts.

    >>> shortened('python /home/me/launch.py --workdir=/data/runs --config.seed=2')
    'python launch.py --workdir=runs --config.seed=2'
    """

    def short(word: str) -> str:
        flag, equals, value = word.rpartition('=')
        return flag + equals + (os.path.basename(value) if os.path.isabs(value) else value)

    return shlex.join(map(short, shlex.split(command)))
