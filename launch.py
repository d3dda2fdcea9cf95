"""Runs an experiment, or goes on with one that was killed.

    python launch.py --config=experiments/X.py --workdir=DIR [--config.a.b=c ...]

Alone, `python launch.py` runs experiments/quickstart.py.
"""

import pathlib
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from ssl_extract import experiment
from ssl_extract.errors import UserError

_HERE = pathlib.Path(__file__).parent
_CONFIG = config_flags.DEFINE_config_file(
    'config', str(_HERE / 'experiments/quickstart.py'), 'Experiment file.', lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    'workdir', '', 'Where everything is kept; default runs/<experiment>.'
)
jax.config.config_with_absl()


def main(argv: list[str]) -> int:
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1]!r}: write --config=... and --workdir=...')
    logging.set_verbosity(logging.ERROR)
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config'])).stem
    try:
        experiment.run(
            _CONFIG.value,
            workdir=_WORKDIR.value or f'runs/{name}',
            fixed=tuple(config_flags.get_override_values(flags.FLAGS['config'])),
            command=' '.join(sys.argv),
            title=name,
        )
    except (UserError, FloatingPointError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    app.run(main)
