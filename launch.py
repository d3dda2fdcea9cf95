"""Runs an experiment, or goes on with one that was killed.

    python launch.py --config=experiments/X.py --workdir=DIR [--config.a.b=c ...]

Alone, `python launch.py` runs experiments/quickstart.py.
"""

import pathlib
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from ssl_extract.errors import UserError
from ssl_extract.pipeline import run as experiment

_HERE = pathlib.Path(__file__).parent
_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Experiment file; default experiments/quickstart.py.', lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    'workdir', '', 'Where everything is kept; default runs/<experiment>.'
)
jax.config.config_with_absl()


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; what absl reports with a traceback, in one line."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        sys.exit(_report(error))


def main(argv: list[str]) -> int:
    """Runs the experiment that the flags describe."""
    if len(argv) > 1:
        return _report(f'unexpected {argv[1]!r}: write --config=... and --workdir=...')
    logging.set_verbosity(logging.ERROR)
    name = config_flags.get_config_filename(flags.FLAGS['config'])
    path, _, argument = name.partition(':')  # 'file.py:text' gives get_config its argument
    path = pathlib.Path(path)
    title = f'{path.stem}_{argument}' if argument else path.stem
    if not path.exists():
        return _report(f'--config={path}: there is no such file')
    try:
        experiment.run(
            _CONFIG.value,
            workdir=_WORKDIR.value or f'runs/{title}',
            fixed=tuple(config_flags.get_override_values(flags.FLAGS['config'])),
            command=' '.join(sys.argv),
            title=title,
        )
    except (UserError, FloatingPointError) as error:
        return _report(error)
    return 0


def _report(error: object) -> int:
    lines = str(error).splitlines()
    said = [line for line in lines if 'errors.UserError: ' in line]  # of get_config, in a traceback
    error = said[-1].split('errors.UserError: ')[1] if said else error
    print('error:', ' '.join(str(error).replace('\\n', ' ').split()), file=sys.stderr)
    return 2


if __name__ == '__main__':
    if not any(argument.startswith('--config=') for argument in sys.argv):
        sys.argv.insert(1, f'--config={_HERE / "experiments/quickstart.py"}')
    app.run(main, flags_parser=parse)
