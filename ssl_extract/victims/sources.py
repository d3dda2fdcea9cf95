"""Sources of victims, by name.

A new source is a factory that returns `load(mesh) -> Victim`, under `@register_source('its_name')`.
"""

import importlib
import os
import sys
from collections.abc import Callable

import jax

from ssl_extract.encoders import torch_weights, trained
from ssl_extract.errors import UserError
from ssl_extract.ranges import Width
from ssl_extract.registry import Registry
from ssl_extract.runtime import files
from ssl_extract.victims import stored as stored_files
from ssl_extract.victims.model import Victim, from_encoder, from_function

SOURCES = Registry('victim source')
register_source = SOURCES.register
Load = Callable[[jax.sharding.Mesh], Victim]


@register_source('pretrain')
def pretrain() -> None:
    """Pretrains a victim in the experiment, by the fields of `victim`.

    >>> pretrain()
    """


@register_source('checkpoint')
def checkpoint(path: str) -> Load:
    """Reads a saved encoder: the folder of a stage, or of `encoders.trained.save`.

    >>> load = checkpoint('runs/stages/victim-0123')  # read when called with a mesh

    Args:
        path: the folder that holds meta.json and variables/.
    """
    folder = files.absolute(path)

    def load(mesh: jax.sharding.Mesh) -> Victim:
        with files.advised('put it back from a copy, or name another folder in victim.source'):
            return from_encoder(trained.load(folder, mesh))._replace(folder=folder)

    return load


@register_source('stored')
def stored(name: str) -> Load:
    """Reads a stored victim: one that comes with the package, or a file of `ssl-extract store`.

    >>> load = stored('digits_simclr')
    >>> load(None).dim
    64

    Args:
        name: the name of a file of experiments/victims/, or the path of a .safetensors file.
    """

    def load(mesh: jax.sharding.Mesh) -> Victim:
        with files.advised('put it back from a copy, or name another victim in victim.source'):
            file = stored_files.read(name, mesh)
        return from_encoder(file.encoder)._replace(origin=file.about)

    return load


@register_source('torch')
def torch(path: str, encoder: str, size: Width, prefix: str | None = None, head: str = '') -> Load:
    """Reads weights of PyTorch: torchvision's ResNets, timm's vision transformers, SSL projects'.

    >>> load = torch('resnet50.safetensors', encoder='normalize | resnet50', size=224)

    Args:
        path: a `.safetensors` file, or what `torch.save` wrote (with the extra `torch`).
        encoder: the spec of the file's network, with the normalization of its training.
        size: side of the images that the victim takes, in pixels.
        prefix: what stands before the names of the encoder's arrays, such as
            'student.module.backbone.'; None finds it.
        head: the spec of the projection head behind the encoder, such as 'simclr(hidden=512,
            dim=128)'; '' leaves the head out.
    """
    file = files.absolute(path)
    trained.make(encoder)  # a wrong spec shows before anything is read
    if head:
        trained.make_head(head)

    def load(mesh: jax.sharding.Mesh) -> Victim:
        with files.advised('put it back from a copy, or name another file in victim.source'):
            loaded = torch_weights.load(file, encoder, size, prefix, head, mesh)
        return from_encoder(loaded.encoder)._replace(origin={'note': str(loaded)})

    return load


@register_source('function')
def function(name: str, dim: Width, address: str = '', answers: str = 'representation') -> Load:
    """Imports a Python function on NumPy arrays, which is called with granted rows only.

    >>> load = function('numpy:abs', dim=3)
    >>> load(None).address
    'numpy:abs'

    Args:
        name: 'module:function'; modules of the working directory can be imported too.
        dim: width of the answers.
        address: the name of the function and its weights where answers are stored; give another
            name whenever the model behind the function changes. '' is `name`.
        answers: the kind of an answer: 'representation', 'posteriors', ...

    Raises:
        UserError: the module or function does not exist, or `dim` is not a whole number of at least
            1.
    """
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
