"""Extraction of self-supervised encoders through an API, and defenses.

    import ssl_extract

    loss = ssl_extract.losses.make('infonce(temperature=0.1)')

Every name below is imported when it is first used; importing the package alone imports no JAX.
"""

import importlib
from typing import Any

__version__ = '0.2.0'

_ROOMS = (
    'attacks',
    'config',
    'data',
    'defenses',
    'encoders',
    'evaluation',
    'losses',
    'ownership',
    'testing',
    'victims',
)
_HOMES = {
    'UserError': 'ssl_extract.errors',
    'collect': 'ssl_extract.api',
    'evaluate': 'ssl_extract.api',
    'export': 'ssl_extract.api',
    'load': 'ssl_extract.api',
    'make_oracle': 'ssl_extract.api',
    'pretrain': 'ssl_extract.api',
    'results': 'ssl_extract.api',
    'score': 'ssl_extract.api',
    'steal': 'ssl_extract.api',
    'train_shadows': 'ssl_extract.api',
}


def __getattr__(name: str) -> Any:
    """Imports a name of the facade (PEP 562).

    Raises:
        AttributeError: the facade has no such name.
    """
    if name in _ROOMS:
        return importlib.import_module(f'ssl_extract.{name}')
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    """Lists the names of the facade, those not yet imported too."""
    return sorted({*globals(), *_ROOMS, *_HOMES})
