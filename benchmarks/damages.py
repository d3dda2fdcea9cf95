"""Whether damaged files are noticed: `python -m benchmarks.damages`, about half an hour.

Damages every file of a finished workdir and of three unfinished ones in turn, in every way: cut,
a bit of it another (at two places), deleted, and written again without a key. Prints what a run
then says. Ends with the count of the damages that a run passed over, for its rows did not depend on
them, and of those whose advice, followed, gave the same rows. Any other outcome ends the benchmark.
"""

import collections
import functools
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable

from absl import app

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / 'tests' / 'helpers'))

import damages  # noqa: E402


def ways(path: pathlib.Path) -> list[Callable[[pathlib.Path], None]]:
    """Lists the damages of a file, none of an empty one."""
    ways = [way for way in damages.damages_of(path) if way is not damages.flipped]
    ways += [functools.partial(damages.flipped, at=at) for at in (0.21, 0.77)]
    return ways if path.stat().st_size else []


def sweep(root: pathlib.Path, finished: pathlib.Path, left: str) -> collections.Counter:
    """Damages every file of a workdir in one state; counts the outcomes."""
    outcomes: collections.Counter = collections.Counter()
    online, whole = left == 'training', root / left
    shutil.copytree(finished, whole)
    damages.unfinished(whole, left)
    expected = None
    for path in damages.files_of(whole):
        for way in ways(path):
            for folder in (root / 'workdir', root / 'elsewhere'):
                shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, root / 'workdir')
            (root / 'elsewhere').mkdir()
            if expected is None:
                expected = damages.rows_of(root / 'workdir', online)
                shutil.rmtree(root / 'workdir')
                shutil.copytree(whole, root / 'workdir')
            way(root / 'workdir' / path.relative_to(whole))
            rows, line = damages.after(root / 'workdir', root / 'elsewhere', online)
            assert rows == expected, (path, way, line)
            outcomes['told' if line else 'passed over'] += 1
            print(f'{left} {path.relative_to(whole)}: {line or "the same rows"}')
    return outcomes


def main(argv: list[str]) -> None:
    """Makes the workdir and damages its copies."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        damages.rows_of(root / 'run')
        for left in damages.LEFT:
            outcomes = sweep(root, root / 'run', left)
            print(f'{left}: {dict(outcomes)}')


if __name__ == '__main__':
    app.run(main)
