"""Stored victims: one file with networks, probe and origin.

A stored victim is a `.safetensors` file: the arrays of the encoder, of the heads behind the encoder
and of a linear probe, and a description as JSON. Files by name lie in `experiments/victims/`, which
comes with the package.
"""

import pathlib
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

import ssl_extract
from ssl_extract import data
from ssl_extract.encoders import chain, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.evaluation import features
from ssl_extract.runtime import files, parallel, places, tensors
from ssl_extract.victims import endpoints

SUFFIX = '.safetensors'
VERSION = 1  # of the files; other ones are not read
MOST_BYTES = 6_000_000  # of the arrays of a victim that comes with the package
_PROBE, _SCALE = 'probe.', ':scale'  # in the names of arrays


class Stored(NamedTuple):
    """A victim as a file holds it.

    Attributes:
        encoder: the encoder with its heads, float32.
        probe: float32 arrays of the linear probe of the first task, by name: 'mean' [D], 'scale'
            [D], 'weights' [D, K], 'bias' [K].
        about: the description: 'dtype' of the file's arrays; 'trained', the data and the fields of
            the training, with its 'seconds' and 'flops'; 'command', 'versions', ... that made it;
            'rows' of its results with the 'evaluation' behind them; 'sample', the accuracy of the
            probe on some of the test inputs; 'moved', the largest change of an answer by the
            rounding to 'dtype', as a share of its size; and 'sha256' of the file's content.
    """

    encoder: Encoder
    probe: dict[str, np.ndarray]
    about: dict[str, Any]


def folder() -> pathlib.Path:
    """Returns the folder of the victims that come with the package."""
    return places.experiments() / 'victims'


def names() -> list[str]:
    """Returns the names of the victims that come with the package.

    >>> 'digits_simclr' in names()
    True
    """
    return [path.stem for path in files.find(folder(), f'*{SUFFIX}')]


def is_name(text: str) -> bool:
    """Returns whether a text is a name of letters, digits, '-' and '_', not the path of a file."""
    return re.fullmatch(r'[\w-]+', text, re.ASCII) is not None


def path_of(text: str) -> epath.Path:
    """Returns the file of a victim, by its name or its path.

    >>> path_of('digits_simclr').name
    'digits_simclr.safetensors'

    Args:
        text: a name, or the path of a .safetensors file.

    Raises:
        UserError: the text is neither.
    """
    if text.endswith(SUFFIX):
        return files.absolute(text)
    if not is_name(text):
        raise UserError(
            f'victim {text!r}: write a name of letters, digits, - and _, or the path of a '
            f'{SUFFIX} file'
        )
    return epath.Path(folder()) / f'{text}{SUFFIX}'


def write(path: epath.PathLike, stored: Stored) -> None:
    """Writes a victim, whole or not at all.

    Args:
        path: the file.
        stored: the victim; `about['dtype']` is the type of its networks' arrays in the file.
    """
    encoder, about = stored.encoder, stored.about
    arrays = arrays_of(encoder, about['dtype'])
    arrays |= {f'{_PROBE}{name}': array for name, array in stored.probe.items()}
    networks = {
        'encoder': encoder.spec,
        'heads': dict(encoder.heads),
        'input_shape': list(encoder.input_shape),
    }
    tensors.write(path, arrays, networks | about)


def read(text: str, mesh: jax.sharding.Mesh | None = None) -> Stored:
    """Reads a victim onto a mesh (default: of all devices).

    >>> read('digits_simclr').about['trained']['data']
    'digits/train[:700]'

    Args:
        text: the name of a victim that comes with the package, or the path of a file.
        mesh: the devices.

    Raises:
        UserError: there is no such victim, or its arrays do not fit its networks.
        DamagedError: the file cannot be read, or its content differs from what was written.
    """
    path = path_of(text)
    if not path.is_file():
        raise UserError(
            f'victim.source: stored({text!r}) is not there; write the path of a {SUFFIX} file, or '
            f'one of {", ".join(names())}'
        )
    arrays, about = tensors.read(path)
    check_version(path, about)
    probe = {
        name.removeprefix(_PROBE): arrays.pop(name) for name in [*arrays] if name.startswith(_PROBE)
    }
    heads, shape = tuple(about['heads'].items()), tuple(about['input_shape'])
    values, template = _values(arrays), trained.shapes_of(about['encoder'], heads, shape)
    _check_shapes(path, template, values, about['encoder'])
    encoder = Encoder(about['encoder'], None, shape, heads)
    return Stored(_filled(encoder, template, values, mesh or parallel.data_mesh()), probe, about)


def check_version(path: epath.PathLike, about: dict[str, Any]) -> None:
    """Checks that this version of the package reads a file.

    Args:
        path: the file.
        about: its description; without a 'file_version' it is of version 1.

    Raises:
        UserError: a version of the package with other files wrote it.
    """
    version = about.get('file_version', 1)
    if version != VERSION:
        raise UserError(
            f'{path}: file version {version}, written by ssl_extract '
            f'{about.get("ssl_extract", "unknown")}, and this is {ssl_extract.__version__}, which '
            f'reads version {VERSION}: install that ssl_extract, or write the file again'
        )


def predict(stored: Stored, dataset: data.Dataset) -> np.ndarray:
    """Predicts the classes int32 [N] of a data set, by the encoder and its probe.

    >>> digits = data.load('digits', 'test[:50]', size=16)
    >>> bool((predict(read('digits_simclr'), digits) == digits.labels).mean() > 0.5)
    True

    Args:
        stored: the victim.
        dataset: of N inputs that the victim takes.
    """
    encoder = stored.encoder
    apply = endpoints.make('labels', encoder.spec, encoder.heads)
    variables = {'encoder': encoder.variables, **encoder.head_variables}
    variables[endpoints.CLASSIFIER] = stored.probe
    return features.represent((apply, variables), dataset).argmax(axis=1).astype(np.int32)


def arrays_of(encoder: Encoder, dtype: str) -> dict[str, np.ndarray]:
    """Returns the arrays of the networks as a file holds them, by name.

    As 'int16', a matrix or kernel is whole numbers with a float32 scale for each output. That is
    as small as float16 and moves answers a tenth as far. Vectors stay float32.

    Args:
        encoder: with its heads.
        dtype: 'float32' or 'int16'.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _by_name(_joint(encoder)).items()}
    if dtype == 'float32':
        return arrays
    packed = {}
    for name, array in arrays.items():
        packed[name] = array
        if array.ndim > 1:
            largest = np.abs(array).max(axis=tuple(range(array.ndim - 1)))
            scale = np.where(largest > 0, largest / 32767, 1).astype(np.float32)
            packed[name] = np.round(array / scale).astype(np.int16)
            packed[f'{name}{_SCALE}'] = scale
    return packed


def rounded(encoder: Encoder, dtype: str) -> Encoder:
    """Returns the encoder as it is read from a file of `dtype`."""
    values = _values(arrays_of(encoder, dtype))
    return _filled(encoder, _joint(encoder), values, parallel.data_mesh())


def _values(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the float32 values of a file's arrays, by name."""
    scales = {name: arrays.get(f'{name}{_SCALE}') for name in arrays}
    return {
        name: array if scales[name] is None else array.astype(np.float32) * scales[name]
        for name, array in arrays.items()
        if not name.endswith(_SCALE)
    }


def _filled(
    encoder: Encoder, template: Any, values: dict[str, np.ndarray], mesh: jax.sharding.Mesh
) -> Encoder:
    """Returns an encoder with the values of a file, whole on every device of the mesh."""
    leaves = [values[name] for name in _by_name(template)]
    joint = jax.tree.unflatten(jax.tree.structure(template), leaves)
    joint = parallel.replicate(joint, mesh)
    heads = {name: chain.part(joint, name) for name, _ in encoder.heads}
    return encoder._replace(variables=chain.part(joint, 'encoder'), head_variables=heads)


def _joint(encoder: Encoder) -> dict[str, Any]:
    """Returns the variables of the encoder and its heads, by kind and then by network."""
    parts = {'encoder': encoder.variables, **encoder.head_variables}
    return {
        kind: {name: variables[kind] for name, variables in parts.items()}
        for kind in ('params', 'batch_stats')
    }


def _by_name(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by name, such as 'params.encoder.stem.kernel', in its order."""
    return {
        jax.tree_util.keystr(path, simple=True, separator='.'): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _check_shapes(
    path: epath.Path, template: Any, arrays: dict[str, np.ndarray], spec: str
) -> None:
    wanted = {name: leaf.shape for name, leaf in _by_name(template).items()}
    have = {name: array.shape for name, array in arrays.items()}
    wrong = sorted(name for name in {*wanted, *have} if wanted.get(name) != have.get(name))
    if wrong:
        raise UserError(
            f'{path}: its arrays do not fit its networks, {spec!r}: {wrong[0]} is '
            f'{have.get(wrong[0], "missing")} and must be {wanted.get(wrong[0], "absent")}; store '
            'the victim again with this version of the package'
        )
