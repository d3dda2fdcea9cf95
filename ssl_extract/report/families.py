"""Families of comparisons, as a config lists them before its runs.

A family lies in a workdir as `comparisons/ID.json`. The comparisons name runs by their ids, so that
the family stays with the runs when workdirs are merged.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from ssl_extract.report.results import FinishedRun
from ssl_extract.runtime import files, locks

FOLDER = 'comparisons'


class Condition(NamedTuple):
    """The rows of one condition, over all seeds.

    Attributes:
        runs: the ids of the runs, one for each seed.
        role: of the rows, such as 'surrogate'.
        user: the kind of a legitimate user; '' of other roles.
        defense: of the rows of a legitimate user.
    """

    runs: tuple[str, ...]
    role: str
    user: str
    defense: str


class Comparison(NamedTuple):
    """A comparison that was listed.

    Attributes:
        name: the comparison in a few words.
        task: the task of the compared values; None of a metric without a task.
        metric: the metric of the compared values.
        margin: the largest difference that counts as none, in the metric's unit; None where
            equivalence is not tested.
        new: the conditions that are compared, of which the best counts.
        old: the conditions that `new` is compared with, of which the best counts.
    """

    name: str
    task: str | None
    metric: str
    margin: float | None
    new: tuple[Condition, ...]
    old: tuple[Condition, ...]

    @property
    def runs(self) -> tuple[str, ...]:
        """Returns the ids of all runs of the comparison, each once."""
        ids = (run for condition in (*self.new, *self.old) for run in condition.runs)
        return tuple(dict.fromkeys(ids))


def write(workdir: epath.Path, family: Sequence[Comparison], listed: str) -> None:
    """Writes a family into a workdir, unless the family is there.

    Args:
        workdir: the workdir.
        family: the comparisons; of none nothing is written.
        listed: the time, in the format of the runs' times.
    """
    about = [_as_dict(comparison) for comparison in family]
    path = workdir / FOLDER / f'{files.checksum(about)[:12]}.json'
    if not family or path.exists():
        return
    with locks.lock(workdir / 'locks' / 'comparisons.lock', FOLDER):
        files.remove_temporary(path.parent)
        if not path.exists():
            files.write_json(path, {'listed': listed, 'comparisons': about})


def read(runs: Sequence[FinishedRun]) -> dict[Comparison, str]:
    """Reads the families of finished runs from the workdirs of the runs.

    Args:
        runs: as `results.read_runs` returns them; a family without a finished run is passed over.

    Returns:
        The comparisons in the order of their lists, with the time of the first list. Each is there
        once, in whatever order the runs of its conditions were listed.

    Raises:
        DamagedError: a file is damaged.
    """
    ids = {run.id for run in runs}
    folders = dict.fromkeys(run.workdir / FOLDER for run in runs)
    with files.advised('move it out of the workdir and give the same command again'):
        stored = [files.read_json(path) for f in folders for path in files.find(f, '*.json')]
    family: dict[Comparison, str] = {}
    for about in sorted(stored, key=lambda about: about['listed']):
        comparisons = [_from_dict(entry) for entry in about['comparisons']]
        if any(ids.intersection(comparison.runs) for comparison in comparisons):
            for comparison in comparisons:
                family.setdefault(comparison, about['listed'])
    return family


def _as_dict(comparison: Comparison) -> dict[str, Any]:
    sides = {name: [c._asdict() for c in getattr(comparison, name)] for name in ('new', 'old')}
    return comparison._asdict() | sides


def _from_dict(entry: dict[str, Any]) -> Comparison:
    sides = {
        name: tuple(Condition(**c | {'runs': tuple(sorted(c['runs']))}) for c in entry[name])
        for name in ('new', 'old')
    }
    return Comparison(**entry | sides)
