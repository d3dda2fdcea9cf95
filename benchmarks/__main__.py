"""The speed of an experiment's pieces on this machine: `python -m benchmarks [--encoder=SPEC ...]`.

Measures the attack step, the pretraining step, victim inference, augmentation, a defense chain, the
linear probe and kNN, for each encoder and batch size. Prints inputs a second with quartiles, and
what compilation, memory, arithmetic and the host cost. docs/performance.md explains the columns.

    python -m benchmarks --json=FILE          writes the figures, the machine and the versions
    python -m benchmarks --against=FILE       prints the ratios to an older FILE as well
    python -m benchmarks.ab OLD NEW           compares two checkouts, measured in turn
"""

import json
import os
import pathlib
import shlex
import sys

import jax
from absl import flags, logging

from benchmarks import commands, suite, tables
from benchmarks.comparison import BUSY
from benchmarks.pieces import PIECES
from ssl_extract import defenses
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.runtime import parallel

FLAGS = flags.FlagValues()  # of this command alone
flags.DEFINE_multi_string(
    'encoder',
    ['resnet18(stem="patch", width=32, stages=(1, 1, 1))'],
    'Victim and surrogate; may be repeated.',
    flag_values=FLAGS,
)
flags.DEFINE_multi_integer(
    'batch_size', [256], 'Images of a call; may be repeated.', 2, flag_values=FLAGS
)
flags.DEFINE_multi_enum(
    'row', [*PIECES], [*PIECES], 'Row to measure; may be repeated; default all.', flag_values=FLAGS
)
flags.DEFINE_integer('size', 32, 'Images are size x size.', 8, flag_values=FLAGS)
flags.DEFINE_string(
    'defense',
    'bucket_coverage | gaussian_noise(stddev=0.1) | round(decimals=2)',
    'The defense chain.',
    flag_values=FLAGS,
)
flags.DEFINE_float('seconds', 3.0, 'Of a measurement, after compiling.', 0.0, flag_values=FLAGS)
flags.DEFINE_string('json', '', 'File to write everything to.', flag_values=FLAGS)
flags.DEFINE_string('against', '', 'File of another run, to compare with.', flag_values=FLAGS)


def read(path: str, flag: str) -> tables.Record:
    """Reads the record of a run.

    Args:
        path: of the file.
        flag: that names it, for the error message.

    Raises:
        UserError: there is no such file, or another program wrote it.
    """
    try:
        record = json.loads(pathlib.Path(path).read_text())
        tables.header(record), tables.table(record), record['date']  # has all that is read
    except OSError as error:
        raise UserError(f'{flag}={path}: {error.strerror}; write a file of --json') from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f'{flag}={path} is no file of --json: write another') from error
    return record


def write(path: str, record: tables.Record) -> None:
    """Writes the record of a run.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        pathlib.Path(path).write_text(json.dumps(record, indent=1))
    except OSError as error:
        raise UserError(f'--json={path}: {error.strerror}; write another file') from error


def check() -> None:
    """Checks what the flags name before anything is measured.

    Raises:
        UserError: an encoder, the defense or a batch size is wrong, or the file of --json has no
            folder.
    """
    for size in FLAGS.batch_size:
        parallel.check_batch_size(size, parallel.data_mesh(), '--batch_size')
    for encoder in FLAGS.encoder:
        trained.make(encoder)
    defenses.make(FLAGS.defense)
    path = pathlib.Path(FLAGS.json)
    if FLAGS.json and (path.is_dir() or not path.parent.is_dir()):
        raise UserError(f'--json={FLAGS.json}: write a file in a folder that exists')


def main(argv: list[str]) -> None:
    """Measures, prints and writes what the flags ask for."""
    if words := commands.parse(FLAGS, argv):
        raise UserError(f'unexpected {words[0]!r}: write --encoder=..., --batch_size=...')
    old = read(FLAGS.against, '--against') if FLAGS.against else None
    check()
    logging.set_verbosity(logging.WARNING)
    jax.config.update('jax_enable_compilation_cache', False)  # to see what compilation takes
    cases = suite.plan(FLAGS.row, FLAGS.encoder, FLAGS.batch_size, FLAGS.size, FLAGS.defense)
    if old is not None:
        tables.check_settings(suite.settings(cases), old['settings'], FLAGS.against)
    if os.getloadavg()[0] > BUSY:
        print(f'load {os.getloadavg()[0]:.1f}: other programs run, and no figure counts')
    record = suite.run(cases, FLAGS.seconds, command(argv))
    print('\n'.join([tables.header(record), *tables.table(record)]))
    if FLAGS.json:
        write(FLAGS.json, record)
    if old is not None:
        print('\n'.join(against(record, old)))


def against(record: tables.Record, old: tables.Record) -> list[str]:
    """Writes the comparison of this run with an older one."""
    title = f'against {FLAGS.against} of {old["date"]}: {tables.header(old)}'
    rows = tables.ratio_table(tables.compare(record, old))
    return ['', title, *tables.differences(record, old), *rows]


def command(argv: list[str]) -> str:
    """Writes the command line down so that a shell reads the same words again."""
    return shlex.join(['python', '-m', 'benchmarks', *argv[1:]])


if __name__ == '__main__':
    sys.exit(commands.run(main, FLAGS, __doc__))
