"""Two checkouts, measured in turn: `python -m benchmarks.ab OLD NEW [-- ARGUMENTS]`.

OLD and NEW are folders with a checkout each. A turn runs `python -m benchmarks ARGUMENTS` of one of
them in a process of its own. The sides alternate, and each round begins with the other one. Prints
for every row the ratio of the medians over the rounds, with the quartiles of the rounds' own
ratios. A ratio of inputs a second above 1 says that NEW is faster.

    python -m benchmarks.ab ../main . -- --row='attack step' --seconds=1
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl import flags

from benchmarks import commands, tables
from ssl_extract.errors import UserError, one_line
from ssl_extract.runtime import progress

FLAGS = flags.FlagValues()  # of this command alone
flags.DEFINE_integer('rounds', 5, 'Turns of each checkout.', 1, flag_values=FLAGS)

OWN = ('--json', '--against')  # which each turn has for itself


def main(argv: list[str]) -> None:
    """Measures both checkouts in turn and prints the ratios."""
    end = argv.index('--') if '--' in argv else len(argv)
    words, arguments = commands.parse(FLAGS, argv[:end]), argv[end + 1 :]
    if len(words) != 2:
        raise UserError(f'{len(words)} folders are named: write OLD and NEW, and flags behind --')
    if refused := [word for word in arguments if word.startswith(OWN)]:
        raise UserError(f'{refused[0]} is not for the turns of a comparison: leave it out')
    old, new = (checkout(word) for word in words)
    records: tuple[list[tables.Record], list[tables.Record]] = ([], [])
    with progress.progress(total=2 * FLAGS.rounds, desc='a/b', unit='turn') as bar:
        for turn in range(FLAGS.rounds):
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                records[side].append(measure((old, new)[side], arguments))
                bar.update()
    (first, *_), (last, *_) = records
    tables.check_settings(last['settings'], first['settings'], str(old))
    print(f'{FLAGS.rounds} rounds, {tables.header(last)}')
    print(f'old: {old}, {first["commit"]}\nnew: {new}, {last["commit"]}')
    rows = tables.compare_rounds(*reversed(records))
    print('\n'.join([*tables.differences(last, first), *tables.ratio_table(rows)]))


def checkout(word: str) -> pathlib.Path:
    """Returns the absolute path of a checkout.

    Raises:
        UserError: the folder has no suite of benchmarks.
    """
    path = pathlib.Path(word).absolute()
    if not (path / 'benchmarks' / '__main__.py').is_file():
        raise UserError(f'{word} has no benchmarks/__main__.py: write the folder of a checkout')
    return path


def measure(side: pathlib.Path, arguments: list[str]) -> tables.Record:
    """Runs the suite of a checkout in a process of its own.

    Args:
        side: the absolute path of the checkout.
        arguments: of the suite.

    Raises:
        UserError: the suite ended with an error, or another package was imported.
    """
    paths = [str(side), *filter(None, [os.environ.get('PYTHONPATH')])]
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / 'record.json'
        done = subprocess.run(
            [sys.executable, '-m', 'benchmarks', *arguments, f'--json={file}'],
            cwd=side,
            env=os.environ | {'PYTHONPATH': os.pathsep.join(paths)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ['nothing'])[-1]
            raise UserError(f'the suite of {side} ended with {done.returncode}: {one_line(said)}')
        record = json.loads(file.read_text())
    if not pathlib.Path(record['package']).is_relative_to(side.resolve()):
        raise UserError(f'{side} measured {record["package"]}: set PYTHONPATH to the checkout')
    return record


if __name__ == '__main__':
    sys.exit(commands.run(main, FLAGS, __doc__))
