"""Encoders, victims and files of them as functions of inputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from etils import epath

from ssl_extract.data import Dataset, decoding
from ssl_extract.encoders.trained import Encoder, content_hash
from ssl_extract.errors import UserError
from ssl_extract.evaluation import features
from ssl_extract.identity import content_of
from ssl_extract.ownership.base import Represent
from ssl_extract.runtime import files, parallel
from ssl_extract.victims import exported
from ssl_extract.victims.model import Victim

Given = (
    Encoder | Victim | Represent | epath.PathLike
)  # a path is that of an encoder's folder or file


class Candidate(NamedTuple):
    """An encoder to be scored.

    Attributes:
        name: as the scores show it.
        address: the hash of its content.
        open: a function that returns the encoder as a function; a file is read there and not
            before, so that hundreds of encoders need the memory of one.
        input_shape: of one input; None takes any.
    """

    name: str
    address: str
    open: Callable[[], Represent]
    input_shape: tuple[int, ...] | None = None


def represent_of(given: Encoder | Victim | Represent) -> Represent:
    """Returns an encoder or a victim as a function of decoded inputs; a function stays as it is.

    >>> from ssl_extract import victims
    >>> victim = victims.from_function(lambda x: x[:, :2], dim=2)
    >>> represent_of(victim)(jax.numpy.ones((3, 4))).shape
    (3, 2)
    """
    if isinstance(given, Victim) and given.encoder is not None:
        given = given.encoder
    if isinstance(given, Victim) and not given.traced:
        answer = given.answer
        return lambda inputs: features.represent(answer, Dataset(inputs, decode='identity'))
    if not isinstance(given, Encoder | Victim):
        return given
    if isinstance(given, Encoder):
        apply, variables = given.network.apply, given.variables
    else:
        apply, variables = _call, given.answer
    how = {'decode': decoding.identity, 'progress': False}
    return lambda inputs: features.extract(
        apply, variables, inputs, mesh=parallel.data_mesh(), **how
    )


def candidate(name: str, given: Given) -> Candidate:
    """Makes a candidate; a file is read once to check it, and again where it is opened.

    Args:
        name: as the scores show it.
        given: an encoder, a victim, a function, or the path of a folder or file.

    Raises:
        UserError: the name is not printable, there is no encoder at the path, it is damaged, or the
            object is none.
    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise UserError(f'{name!r} is no name of an encoder: write printable text on one line')
    if isinstance(given, str | epath.Path) or hasattr(given, '__fspath__'):
        first = read(given)
        return candidate(name, first)._replace(open=lambda: represent_of(read(given)))
    if isinstance(given, Encoder):
        address, shape = content_hash(given), given.input_shape
    elif isinstance(given, Victim):
        address, shape = given.address, given.input_shape
    elif callable(given):
        address, shape = content_of(given), None
    else:
        raise UserError(f'{name}: {type(given).__name__} is no encoder, victim, function or path')
    return Candidate(name, address, lambda: represent_of(given), shape)


def read(path: epath.PathLike) -> Encoder | Victim:
    """Reads the folder or file of an encoder; see `exported.load`.

    Raises:
        UserError: there is no encoder, or it is damaged.
    """
    with files.advised('put it back from a copy, or take it out of the folder'):
        return exported.load(path)


def in_folder(folder: epath.PathLike) -> dict[str, epath.Path]:
    """Returns the encoders in a folder by name: folders of encoders and exported files.

    An encoder's folder or file itself is one encoder. Hidden entries are left out.

    Args:
        folder: such as the folder `surrogate` of a workdir.

    Raises:
        UserError: there is no such folder, it is empty, or an entry is no encoder.
    """
    folder = files.absolute(folder)
    if not folder.exists():
        raise UserError(f'{folder} is not there: write a folder of encoders')
    if _is_encoder(folder):
        return {folder.name: folder}
    entries = [] if folder.is_file() else [e for e in sorted(folder.iterdir()) if _is_shown(e)]
    for entry in entries or [folder]:
        if not _is_encoder(entry):
            raise UserError(
                f'{entry} is no encoder: in a folder of encoders, keep folders of encoders and '
                f'files that end in .{", .".join(exported.FORMATS)}'
            )
    return {entry.name: entry for entry in entries}


def _is_encoder(path: epath.Path) -> bool:
    if path.is_dir():
        return (path / 'meta.json').exists()
    return path.suffix.removeprefix('.') in exported.FORMATS


def _is_shown(path: epath.Path) -> bool:
    return not path.name.startswith('.')


def _call(answer: Any, inputs: jax.Array) -> jax.Array:
    return answer(inputs)
