"""Runs an experiment, or goes on with one that was stopped: `ssl-extract` in a checkout.

    python launch.py --config=experiments/X.py --workdir=DIR [--config.a.b=c ...]

Alone, `python launch.py` runs experiments/quickstart.py; `python launch.py --help` tells the rest.
"""

import sys

from ssl_extract.cli import main

if __name__ == '__main__':
    sys.exit(main())
