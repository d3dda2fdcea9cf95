"""Sources of victims, by name.

A new source is a factory that returns `load(mesh) -> Victim`, under `@register_source('its_name')`.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import jax
import numpy as np

from ssl_extract.encoders import torch_weights, trained
from ssl_extract.errors import UserError, place_of, told_with_place
from ssl_extract.ranges import Count, NotNegative, Positive, Range, Width
from ssl_extract.registry import Registry
from ssl_extract.runtime import files, parallel
from ssl_extract.victims import embeddings as embeddings_lib
from ssl_extract.victims import stored as stored_files
from ssl_extract.victims.connection import Settings
from ssl_extract.victims.model import Victim, from_encoder, from_function
from ssl_extract.victims.service import Service

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
def torch(
    path: str,
    encoder: str,
    size: Width | None = None,
    prefix: str | None = None,
    head: str = '',
    length: Count | None = None,
) -> Load:
    """Reads weights of PyTorch: torchvision's ResNets, timm's vision transformers, SSL projects'.

    >>> load = torch('resnet50.safetensors', encoder='normalize | resnet50', size=224)

    Args:
        path: a `.safetensors` file, or what `torch.save` wrote (with the extra `torch`).
        encoder: the spec of the file's network, with the normalization of its training.
        size: side of the images that the victim takes, in pixels; None for waveforms.
        prefix: what stands before the names of the encoder's arrays, such as
            'student.module.backbone.'; None finds it.
        head: the spec of the projection head behind the encoder, such as 'simclr(hidden=512,
            dim=128)'; '' leaves the head out.
        length: samples of the waveforms that the victim takes, padded; None for images.

    Raises:
        UserError: the encoder does not exist, or not one of `size` and `length` is given.
    """
    torch_weights.input_shape(size, length)
    file = files.absolute(path)
    trained.make(encoder)  # a wrong spec shows before anything is read
    if head:
        trained.make_head(head)

    def load(mesh: jax.sharding.Mesh) -> Victim:
        with files.advised('put it back from a copy, or name another file in victim.source'):
            loaded = torch_weights.load(file, encoder, size, prefix, head, mesh, length=length)
        return from_encoder(loaded.encoder)._replace(origin={'note': str(loaded)})

    return load


@register_source('embeddings')
def embeddings(file: str, ids: str = 'inputs', answers: str = 'representation') -> Load:
    """Reads a file of embeddings: a victim that answers the inputs of the file only.

    >>> load = embeddings('answers.npz')  # read when called with a mesh

    Args:
        file: an .npz with arrays, or a .parquet with columns: 'embeddings' [N, D], and `ids`.
        ids: the array or column of the inputs: the inputs [N, ...] as a data set stores them, or
            their hashes [N], of `victims.content_hashes`.
        answers: the kind of an answer: 'representation', 'posteriors', ...
    """
    return lambda mesh: embeddings_lib.read(file, ids, answers)


@register_source('http')
def http(
    url: str,
    token: str = '',
    dim: Annotated[int, Range(0, 2**16)] = 0,
    address: str = '',
    answers: str = '',
    batch_size: Count | None = None,
    body: str = 'npz',
    dtype: str = 'float32',
    field: str = '',
    pause: NotNegative = 0.0,
    timeout: Positive = 60.0,
    retries: Annotated[int, Range(0, 100)] = 6,
    wait: Positive = 1.0,
    max_queries: Count | None = None,
) -> Load:
    """Asks a service over HTTP; the answers to a request are kept before the next is sent.

    >>> load = http('https://localhost:8000', dim=64)  # such a service is not asked before a query
    >>> load(None).address
    'https://localhost:8000'

    Args:
        url: of the service; without a token, a password or a query in it.
        token: the NAME of the environment variable that holds the token; '' sends none.
        dim: width of the answers; 0 asks the service for it, and for `address` and `answers`.
        address: the name of the service and its model where answers are stored; '' is the url and
            what the service calls itself.
        answers: the kind of an answer; '' is what the service says, or 'representation'.
        batch_size: inputs in a request, at most; None is 64, or fewer if the service takes fewer.
        body: 'npz' or 'json', the form of a request and of its reply.
        dtype: 'float32', or 'uint8' for images in [0, 1], sent as 255ths.
        field: of a service of another format, the field of the answers in its JSON: the inputs are
            then posted to the url itself. '' is the format of this package.
        pause: seconds between two requests.
        timeout: seconds that a reply may take.
        retries: further attempts after 408, 429, 5xx, a timeout or a lost connection.
        wait: seconds before the first of these, doubled each time; a Retry-After goes before it.
        max_queries: queries that all runs of a workdir may send to the service; None is no limit.
    """
    settings = Settings(
        url, token, batch_size, body, dtype, field, pause, timeout, retries, wait, max_queries
    )
    _check_http(settings, dim)

    def load(mesh: jax.sharding.Mesh) -> Victim:
        del mesh
        service = Service(settings, dim, address)
        shape, kind = service.about.get('input_shape'), service.about.get('answers')
        return Victim(
            service.address,
            service.dim,
            service.answer,
            False,
            answers or kind or 'representation',
            shape and tuple(shape),
            service=service,
        )

    return load


def _check_http(settings: Settings, dim: int) -> None:
    for name, choices in (('body', ('npz', 'json')), ('dtype', ('float32', 'uint8'))):
        if getattr(settings, name) not in choices:
            raise UserError(f'{name} must be {" or ".join(map(repr, choices))}')
    if settings.field and not (dim and settings.body == 'json'):
        raise UserError(
            'field=...: a service of another format does not say its width and takes JSON; write '
            "dim=... and body='json' too"
        )


@register_source('function')
def function(name: str, dim: Width, address: str = '', answers: str = 'representation') -> Load:
    """Imports a Python function on NumPy arrays, which is called with granted rows only.

    What the function raises becomes a `UserError` of one line, with the original as its cause.

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
        fn = _imported(name, module, attribute)
        victim = from_function(fn, dim=dim, address=address or name, answers=answers)
        return victim._replace(answer=_told(name, fn))

    return load


def _told(name: str, fn: Callable) -> Callable:
    """Returns a function of the user whose errors are told apart from those of this package."""

    def answer(inputs: np.ndarray) -> Any:
        try:
            return fn(inputs)
        except Exception as error:
            raise _failed(name, error) from error

    return answer


def load(source: str, mesh: jax.sharding.Mesh | None = None) -> Victim:
    """Loads the victim of a source, for use without a config.

    >>> load('stored("digits_simclr")').dim
    64

    Args:
        source: the spec of a source, as `victim.source` takes it.
        mesh: the devices; None is all.

    Raises:
        UserError: the source is unknown, pretrains the victim, or cannot be read.
    """
    make = SOURCES.make(source)
    if make is None:
        raise UserError(f'{source!r} loads no victim; write ssl_extract.pretrain(...)')
    return make(mesh or parallel.data_mesh())


def _imported(name: str, module: str, attribute: str) -> Callable:
    """Returns an attribute of a module.

    Raises:
        UserError: there is no such module or attribute, or its import fails.
    """
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ImportError | AttributeError | ValueError | TypeError)
        if absent and not place_of(error):  # not of the module's own code
            reason = ' '.join(str(error).split())
            raise UserError(
                f'victim.source: function({name!r}) is not there ({reason}); write '
                "function('module:name', dim=...)"
            ) from None
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> UserError:
    return UserError(f'victim.source: function({name!r}): {told_with_place(error)}')
