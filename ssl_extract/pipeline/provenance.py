"""Provenance of a run: command, version, machine, and the fields set."""

import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax

from ssl_extract import config
from ssl_extract.report import flatten


def describe(command: str) -> dict[str, Any]:
    """Describes the command, the commit, the versions of the libraries, and the devices."""
    return {
        'command': command,
        'commit': _commit(),
        'versions': versions(),
        'devices': [str(device.device_kind) for device in jax.devices()],
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that results depend on."""
    names = ('jax', 'flax', 'optax', 'numpy')
    return {'python': platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }


def defaults(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the default of each dotted field whose value is not the default.

    The defaults of an attack's own settings are those of the attack.

    Args:
        fields: a resolved config, nested, with or without some of its fields.
    """
    base = config.base()
    usual = {'attack.name': base.attack.name}
    base.attack.name = fields['attack']['name']
    usual = flatten(next(config.expand(base)).to_dict()) | usual
    own = flatten(fields)
    return {name: value for name, value in usual.items() if name in own and own[name] != value}


def _commit() -> str:
    folder = pathlib.Path(__file__).parent
    try:
        answer = subprocess.run(
            ['git', 'rev-parse', 'HEAD'], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return 'unknown'
    return answer.stdout.strip() or 'unknown'
