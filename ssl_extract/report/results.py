"""The results of finished runs, and their tidy rows.

A finished run is a folder `runs/ID/` of a workdir. `run.json` is written last, as the sign that the
run is finished; a folder without `run.json` is passed over.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.report import columns
from ssl_extract.report.estimates import Row
from ssl_extract.runtime import files

RUNS = 'runs'
_KEYS = {
    'rows.jsonl': ('role', 'metric', 'value'),
    'bills.json': ('account', 'run', 'budget', 'plan', 'billed', 'unique', 'repeated', 'refused'),
    'curves.json': ('name', 'role', 'stage', 'folder'),
    'views.json': ('title', 'folder'),
}

_MEASURED = ('value', 'ci_low', 'ci_high', 'n')


class FinishedRun(NamedTuple):
    """A finished run, as read from a folder.

    Attributes:
        id, name, title: the hash of the resolved config, the run in a few words, the experiment.
        command, started, commit, versions, devices: of the process.
        config: the resolved config, nested.
        rows: of `rows.jsonl`.
        bills: of `bills.json`.
        curves: of `curves.json`; a folder holds the `parts` and is relative to `workdir`.
        views: of `views.json`; a folder holds `arrays.npz` and is relative to `workdir`.
        workdir: of the run.
        notes: what the run's sets have in common, in sentences.
        finished: the end of the process; None in runs of an older version.
        defaults: the default of each dotted field that differs from it; None in runs of an older
            version.
        studied: the `network` and the number of `parameters` of the victim, of the `images` that it
            was pretrained on, and of the images in the attacker's `pool`; None in runs of an older
            version.
        shown: folders of pictures by their kind, relative to `workdir`: `clips`, spectrograms of a
            few clips where inputs are waveforms, and `triggers`, images without and with a trigger;
            None in runs of an older version.
    """

    id: str
    name: str
    title: str
    command: str
    started: Any
    commit: str
    versions: dict[str, str]
    devices: list[str]
    config: dict[str, Any]
    rows: list[Row]
    bills: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    views: list[dict[str, Any]]
    workdir: epath.Path
    notes: Sequence[str] = ()
    finished: Any = None
    defaults: dict[str, Any] | None = None
    studied: dict[str, Any] | None = None
    shown: dict[str, str] | None = None

    @property
    def folder(self) -> epath.Path:
        """Returns the folder of the run's files."""
        return self.workdir / RUNS / self.id


def read_runs(*workdirs: epath.PathLike) -> list[FinishedRun]:
    """Reads all finished runs of some workdirs, in the order in which they were started.

    A run that is in two workdirs with the same results counts once; times may differ.

    Args:
        workdirs: folders with a folder `runs`; a workdir without one has no finished run.

    Raises:
        UserError: a file is damaged, or two workdirs have one run with different results.
    """
    runs: dict[str, FinishedRun] = {}
    for workdir in workdirs:
        for run in _runs_of(epath.Path(workdir).expanduser()):
            other = runs.setdefault(run.id, run)
            if _results(other) != _results(run):
                raise UserError(
                    f'run {run.id} ({run.name}) has other results in {other.folder} than in '
                    f'{run.folder}: remove one of the two folders, or report them one at a time'
                )
    return sorted(runs.values(), key=lambda run: (str(run.started), run.id))


def tidy(runs: Sequence[FinishedRun]) -> list[Row]:
    """Returns the rows of all runs, each measured value once.

    A row has the columns of `columns.NAMES`, and a column for every config field that differs
    between the runs, under the dotted name of the field. Rows that are the same in several runs, as
    the victim's, are one row: `run`, and each field, is the value on which the runs agree, else
    None. The fields of the baselines stand in rows of what depends on them: the encoder from
    scratch, and surrogates that start from it or recover answers. Times do not distinguish rows of
    two workdirs, and the first run's time stands. Two evaluations of one encoder may have the same
    value by chance: the rows stay apart where the two evaluations give another encoder different
    values.

    Args:
        runs: as `read_runs` returns them.

    Returns:
        Rows in the order of the runs; all have the same keys.
    """
    names, told_apart = differing(runs), _depend_on_the_evaluation(runs)
    merged: dict[str, tuple[Row, list[FinishedRun]]] = {}
    for run in runs:
        for row in run.rows:
            row = {name: row.get(name) for name in columns.NAMES if name != 'run'}
            how = run.config.get('evaluation') if _measurement(row) in told_apart else None
            merged.setdefault(_text([_untimed(row), how]), (row, []))[1].append(run)
    # By the runs that share a row, since many rows are shared by the same runs.
    agreed: dict[tuple, Row] = {}
    rows = []
    for row, sharing in merged.values():
        ids = tuple(run.id for run in sharing)
        key = ids, row['role'] == 'scratch'
        if key not in agreed:
            fields = agreed_fields(sharing, _own_fields(names, row['role'], sharing))
            agreed[key] = {'run': _agreed(ids), **dict.fromkeys(names), **fields}
        rows.append(row | agreed[key])
    return rows


def _own_fields(names: Sequence[str], role: str, runs: Sequence[FinishedRun]) -> list[str]:
    """Returns the fields on which rows of a role may depend."""
    configs = [flatten(run.config) for run in runs]
    own = any(c.get('attack.init') or c.get('attack.recover') for c in configs)
    depends = role == 'scratch' or (own and role == 'surrogate')
    return [name for name in names if depends or not name.startswith('baselines.')]


def _depend_on_the_evaluation(runs: Sequence[FinishedRun]) -> set[tuple]:
    """Finds the measurements of which one encoder has several values, by role, task and metric."""
    values: dict[tuple, set[str]] = {}
    for run in runs:
        for row in run.rows:
            key = (*_measurement(row), row.get('stage'))
            values.setdefault(key, set()).add(_text([row.get(name) for name in _MEASURED]))
    return {key[:-1] for key, told in values.items() if len(told) > 1}


def _measurement(row: Row) -> tuple:
    return row['role'], row.get('task'), row['metric']


def differing(runs: Sequence[FinishedRun]) -> list[str]:
    """Names the config fields that differ between runs and that no column expresses.

    A column expresses a field where the value of the column determines the value of the field: the
    surrogates of runs with another field have another value in the column. A field of the victim or
    of the data must show in the rows of all roles. A field that lists the values of a column, as
    the users, is expressed. A `content` differs only between runs that name the same thing.
    """
    configs = {run.id: flatten(run.config) for run in runs}
    names = list(dict.fromkeys(name for config in configs.values() for name in config))
    varied = [name for name in names if len(_values(name, configs)) > 1]
    column_of = {field: column for column in columns.COLUMNS for field in column.fields}
    return [
        name
        for name in varied
        if name not in column_of or not _is_expressed(name, column_of[name], runs, configs)
    ]


def agreed_fields(runs: Sequence[FinishedRun], names: Sequence[str]) -> dict[str, Any]:
    """Returns the value of each config field on which all runs agree, else None.

    A list is a text of its entries; '' stands for a field that a run does not have.
    """
    configs = [flatten(run.config) for run in runs]
    return {name: _agreed([_cell(config.get(name)) for config in configs]) for name in names}


def flatten(config: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """Returns a nested config as dotted fields.

    >>> flatten({'seed': 1, 'attack': {'loss': 'mse'}})
    {'seed': 1, 'attack.loss': 'mse'}
    """
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f'{prefix}{name}.')
        else:
            flat[f'{prefix}{name}'] = value
    return flat


def _runs_of(workdir: epath.Path) -> Iterator[FinishedRun]:
    if not workdir.exists():
        raise UserError(f'there is no folder {workdir}: write the workdir of an experiment')
    root = workdir / RUNS
    for folder in sorted(root.iterdir()) if root.exists() else ():
        if (folder / 'run.json').exists():
            yield _read(workdir, folder)


def _read(workdir: epath.Path, folder: epath.Path) -> FinishedRun:
    with files.advised(_remedy(folder)):
        about = files.read_json(folder / 'run.json')
    keys = [name for name in FinishedRun._fields[: FinishedRun._fields.index('rows')]]
    missing = [key for key in keys if key not in about]
    if missing or about['id'] != folder.name or not isinstance(about['config'], dict):
        wrong = f'it lacks {", ".join(missing)}' if missing else 'its id or config is wrong'
        raise _damaged(folder, 'run.json', wrong)
    checksums = about.get('files', {})  # a run written by hand has none
    lists = [_entries(folder, name, checksums.get(name)) for name in _KEYS]
    later = {name: about.get(name) for name in ('finished', 'defaults', 'studied', 'shown')}
    later['notes'] = about.get('notes', ())
    return FinishedRun(*(about[key] for key in keys), *lists, workdir=workdir, **later)


def _entries(folder: epath.Path, name: str, checksum: str | None) -> list[dict[str, Any]]:
    """Reads the entries of one of the lists of a run."""
    entries = _parse(folder, name)
    if checksum is not None and files.checksum(entries) != checksum:
        raise _damaged(folder, name, 'its content is not what was written')
    whole = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    if not whole:
        raise _damaged(folder, name, 'it is no list of objects')
    for entry in entries:
        missing = [key for key in _KEYS[name] if key not in entry]
        if missing:
            raise _damaged(folder, name, f'an entry lacks {", ".join(missing)}')
    return entries


def _parse(folder: epath.Path, name: str) -> Any:
    path = folder / name
    try:
        text = path.read_text()
        rows = name.endswith('.jsonl')
        return [json.loads(line) for line in text.splitlines()] if rows else json.loads(text)
    except (FileNotFoundError, ValueError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise _damaged(folder, name, lines[0]) from error


def _damaged(folder: epath.Path, name: str, reason: str) -> UserError:
    return UserError(f'cannot read {folder / name} ({reason}): {_remedy(folder)}')


def _remedy(folder: epath.Path) -> str:
    return (
        f'move {folder} out of the workdir and run its experiment again there; what its stages '
        'made is kept'
    )


def _results(run: FinishedRun) -> tuple[list[Row], list[Row]]:
    """Returns the results on which two copies of a run must agree; the id stands for the config."""
    return [_untimed(row) for row in run.rows], run.bills


def _untimed(row: Row) -> Row:
    """Returns a row without what tells no rows apart: its time, and the words for its metric."""
    left_out = ('seconds', *columns.PRESENTATION)
    return {name: value for name, value in row.items() if name not in left_out}


def _values(name: str, configs: dict[str, dict[str, Any]]) -> set[str]:
    """Returns the values of a field, as texts."""
    named = [c for c in configs.values() if name in c or not name.startswith('content.')]
    return {_text(config.get(name)) for config in named}


def _is_expressed(
    name: str,
    column: columns.Column,
    runs: Sequence[FinishedRun],
    configs: dict[str, dict[str, Any]],
) -> bool:
    roles = columns.ROLES if name.split('.')[0] in columns.SETTING else ('surrogate',)
    values: dict[tuple, set[str]] = {}
    for run in runs:
        value = configs[run.id].get(name)
        if isinstance(value, list):
            return True
        for row in run.rows:
            if row['role'] in roles:
                cell = row['role'], _text(row.get(column.name))
                values.setdefault(cell, set()).add(_text(value))
    return all(len(told) == 1 for told in values.values())


def _cell(value: Any) -> Any:
    """Returns a config's value as a column holds it; '' where there is no such field."""
    if isinstance(value, list):
        return ', '.join(map(str, value))
    return '' if value is None else value


def _agreed(values: Sequence[Any]) -> Any:
    return values[0] if all(_text(value) == _text(values[0]) for value in values) else None


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
