"""Sources of victims, by name.

A new source is a factory that returns `load(mesh) -> Victim`, under `@register_source('its_name')`.
"""

import importlib
import os
import sys
from collections.abc import Callable

import jax
from etils import epath

from ssl_extract.checks import check_whole
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.registry import Registry
from ssl_extract.victims.model import Victim, from_encoder, from_function

SOURCES = Registry('victim source')
register_source = SOURCES.register
Load = Callable[[jax.sharding.Mesh], Victim]


@register_source('pretrain')
def pretrain() -> None:
    """A victim that the experiment pretrains, as its `victim` fields say."""


@register_source('checkpoint')
def checkpoint(path: str) -> Load:
    """A saved encoder: the folder of a stage, or of `ssl_extract.encoders.save`.

    Args:
        path: the folder that holds meta.json and variables/.
    """
    folder = epath.Path(path).expanduser().absolute()
    return lambda mesh: from_encoder(trained.load(folder, mesh))._replace(folder=folder)


@register_source('function')
def function(name: str, dim: int, address: str = '', answers: str = 'representation') -> Load:
    """A Python function on NumPy arrays, called with granted rows only.

    Args:
        name: 'module:function'; the module is found from the working directory too.
        dim: width of its answers.
        address: the name that stands for the function and its weights where answers are kept; give
            another one whenever the model behind it changes. '' is `name`.
        answers: what an output is: 'representation', 'posteriors', ...

    Raises:
        UserError: there is no such module or function, or `dim` is not a whole number of at least
            1.
    """
    check_whole('dim', dim, 1)
    module, _, attribute = name.partition(':')

    def load(mesh: jax.sharding.Mesh) -> Victim:
        del mesh
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            fn = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f'victim.source: function({name!r}) is not there ({error}); write '
                "function('module:name', dim=...)"
            ) from None
        return from_function(fn, dim=dim, address=address or name, answers=answers)

    return load
