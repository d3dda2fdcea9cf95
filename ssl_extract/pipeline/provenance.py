"""Provenance of a run: the command, the code's version and the machine."""

import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax


def describe(command: str) -> dict[str, Any]:
    """Describes the command, the commit, the versions of the libraries, and the devices."""
    versions = {
        name: importlib.metadata.version(name) for name in ('jax', 'flax', 'optax', 'numpy')
    }
    return {
        'command': command,
        'commit': _commit(),
        'versions': {'python': platform.python_version(), **versions},
        'devices': [str(device.device_kind) for device in jax.devices()],
    }


def _commit() -> str:
    folder = pathlib.Path(__file__).parent
    try:
        answer = subprocess.run(
            ['git', 'rev-parse', 'HEAD'], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return 'unknown'
    return answer.stdout.strip() or 'unknown'
