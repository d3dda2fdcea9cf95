"""Exported encoders: files for other programs, run when they are written."""

import pathlib
import tempfile
from typing import Any

import jax
import numpy as np
from etils import epath

import ssl_extract
from ssl_extract import encoders
from ssl_extract.encoders import trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.padding import PADDING
from ssl_extract.runtime import files
from ssl_extract.victims import program_files, stored
from ssl_extract.victims.model import Victim
from ssl_extract.victims.stored import Stored

TOLERANCE = 1e-5  # of a representation, as a share of its size
BATCHES = (1, 2, 5)  # sizes that a file is checked with


def _write_safetensors(path: epath.PathLike, encoder: Encoder, about: dict[str, Any]) -> None:
    stored.write(path, Stored(encoder, {}, about | {'dtype': 'float32'}))


def _read_safetensors(path: epath.PathLike) -> Encoder:
    return stored.read(str(path)).encoder


FORMATS = {
    'safetensors': (_write_safetensors, _read_safetensors),
    'stablehlo': (program_files.write_stablehlo, program_files.read_stablehlo),
    'onnx': (program_files.write_onnx, program_files.read_onnx),
}
_SUFFIXES = ', '.join(f'.{name}' for name in FORMATS)


def export(encoder: Encoder, path: epath.PathLike) -> dict[str, Any]:
    """Writes an encoder to a new file, which is read back and run before it gets its name.

    Args:
        encoder: a trained encoder.
        path: a name of a local file that ends in .safetensors (weights, those of the heads too),
            .stablehlo or .onnx (programs).

    Returns:
        The description within the file (see `describe`), with the `difference` that was found: the
        largest change of a representation, as a share of its size.

    Raises:
        UserError: the name has another ending or exists, the encoder cannot be converted, or the
            file gives other representations than the encoder.
    """
    path = files.absolute(path)
    write, _ = FORMATS[format_of(path)]
    if not files.is_local(path):
        raise UserError(f'{path}: write a name on a local disk, and copy the file to the bucket')
    if path.exists():
        raise UserError(f'{path} exists: remove it, or write another name')
    about = describe(encoder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.export-', dir=path.parent) as folder:
        written = epath.Path(folder) / path.name
        write(written, encoder, about)
        difference = _difference(load(written), encoder)
        if not difference <= TOLERANCE:
            raise UserError(
                f'{path}: the file moves a representation by {difference:.1e} of its size, and '
                f'{TOLERANCE:.0e} is the most: write another format'
            )
        files.rename(written, path)
    return about | {'difference': difference}


def load(path: epath.PathLike) -> Encoder | Victim:
    """Reads an encoder, or an exported program as a victim.

    Args:
        path: the folder of an encoder, or a file of `export` or of `ssl-extract store`.

    Raises:
        DamagedError: the file or the folder is damaged.
        UserError: there is no encoder at `path`, or another version of the package wrote it.
    """
    path = files.absolute(path)
    if path.is_dir() or not path.suffix:
        return trained.load(path)
    _, read = FORMATS[format_of(path)]
    if not path.exists():
        raise UserError(f'{path} is not there: write the name of an exported file')
    return read(path)


def format_of(path: epath.PathLike) -> str:
    """Returns the format that a file's name ends in.

    >>> format_of('mine.onnx')
    'onnx'

    Raises:
        UserError: the name ends in none of the formats.
    """
    name = pathlib.PurePath(path).suffix.removeprefix('.')
    if name not in FORMATS:
        raise UserError(f'{path}: write a name that ends in {_SUFFIXES}')
    return name


def describe(encoder: Encoder) -> dict[str, Any]:
    """Describes an encoder for other programs.

    Args:
        encoder: a trained encoder.

    Returns:
        The versions of the package and of the file; the spec of the network, its 'input_shape' and
        'dim'; the 'address', which is the hash of the spec and the weights; and in words what the
        'inputs' are.
    """
    shape = ', '.join(map(str, encoder.input_shape))
    inputs = f'float32 [batch, {shape}]'
    if len(encoder.input_shape) == 3:
        inputs += ' in [0, 1]; of uint8 images, x / 255; normalization is part of the encoder'
    elif encoders.vocabulary_of(encoder.spec):
        inputs += ', tokens as whole numbers, with -1 behind the end of a text'
    return {
        'ssl_extract': ssl_extract.__version__,
        'file_version': stored.VERSION,
        'encoder': encoder.spec,
        'input_shape': list(encoder.input_shape),
        'dim': encoder.dim,
        'address': trained.content_hash(encoder),
        'inputs': inputs,
    }


def _examples(encoder: Encoder) -> np.ndarray:
    """Draws inputs: tokens of the vocabulary for an encoder of tokens, else floats in [0, 1)."""
    rng, shape = np.random.default_rng(0), (max(BATCHES), *encoder.input_shape)
    vocabulary = encoders.vocabulary_of(encoder.spec)
    if not vocabulary:
        return rng.random(shape, np.float32)
    tokens = rng.integers(vocabulary, size=shape).astype(np.float32)
    tokens[:, 1 + shape[1] // 2 :] = PADDING
    return tokens


def _difference(read: Encoder | Victim, encoder: Encoder) -> float:
    """Returns the largest change of a representation by a file, as a share of its size."""
    represent = read.apply if isinstance(read, Encoder) else read.answer
    inputs = _examples(encoder)
    shares = []
    with jax.default_matmul_precision('highest'), np.errstate(divide='ignore', invalid='ignore'):
        for size in BATCHES:
            wanted = np.asarray(encoder.apply(inputs[:size]), np.float64)
            moved = np.linalg.norm(np.asarray(represent(inputs[:size])) - wanted, axis=1)
            shares.append(np.where(moved == 0, 0, moved / np.linalg.norm(wanted, axis=1)))
    return float(np.concatenate(shares).max())  # NaN where one is
