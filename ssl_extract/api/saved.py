"""Saved and exported encoders, for the facade."""

import os
from typing import Any

from etils import epath

from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.runtime import files
from ssl_extract.victims import exported
from ssl_extract.victims.model import Victim


def load(path: epath.PathLike) -> Encoder | Victim:
    """Reads an encoder, or an exported program.

    Args:
        path: a stage's folder of an experiment, the `folder` of `steal` or `pretrain`, or a file of
            `export` or of `ssl-extract store`.

    Returns:
        An encoder of a folder and of a .safetensors file. A .stablehlo and an .onnx file hold a
        program and no network: they are a victim, for `make_oracle` and `evaluate(victim=...)`.

    Raises:
        UserError: there is no encoder at `path`, it is damaged, or another version of the package
            wrote it.
    """
    with files.advised('put it back from a copy, or train or export the encoder again'):
        return exported.load(path)


def export(encoder: Encoder | Victim | epath.PathLike, path: epath.PathLike) -> dict[str, Any]:
    """Writes an encoder to a file for other programs, which is run before it gets its name.

    Args:
        encoder: an encoder, a victim that is one, or what `load` reads one from.
        path: a new file that ends in .safetensors (weights), .stablehlo or .onnx (programs).

    Returns:
        The description within the file: 'encoder', 'input_shape', 'dim', 'address', 'inputs', ...;
        and the `difference` that was found: the largest change of a representation by the file, as
        a share of its size.

    Raises:
        UserError: there is no encoder, the file exists or has another ending, or the encoder cannot
            be converted.
    """
    given = load(encoder) if isinstance(encoder, str | os.PathLike) else encoder
    network = given.encoder if isinstance(given, Victim) else given
    if not isinstance(network, Encoder):
        name = given.address if isinstance(given, Victim) else type(given).__name__
        raise UserError(
            f'export: {name} is no encoder: give one, its folder or a .safetensors file'
        )
    return exported.export(network, path)
