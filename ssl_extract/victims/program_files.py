"""Encoders as programs in files: StableHLO and ONNX.

A file is the program, and at its end one JSON object that describes and seals it. Weights lie
within the program. The batch size is free, and a product of float32 numbers is one of float32 on
every device: by default TPUs and GPUs round the factors.
"""

import hashlib
import importlib
import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import export

from ssl_extract.encoders import base, onednn
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.runtime import files
from ssl_extract.victims import stored
from ssl_extract.victims.model import Victim

PLATFORMS = ('cpu', 'cuda', 'tpu')
OPSET = 21  # of ONNX; onnxruntime 1.20 and later run it
INPUTS, OUTPUTS = 'inputs', 'representations'  # of the ONNX graph
_KEY = 'about'  # of the description, in the metadata of the ONNX model
_START = b'{"ssl_extract": '  # of a description


def write_stablehlo(path: epath.PathLike, encoder: Encoder, about: dict[str, Any]) -> None:
    """Writes the program of `jax.export`, a newline and the description.

    Args:
        path: the file.
        encoder: float32 inputs [B, ...] to representations float32 [B, D].
        about: the description; 'ssl_extract' is its first key.

    Raises:
        UserError: the encoder has no program for any batch size and platform.
    """
    shape = export.symbolic_shape(', '.join(['batch', *map(str, encoder.input_shape)]))
    lower = export.export(jax.jit(_plain(encoder)), platforms=PLATFORMS)
    try:
        program = lower(jax.ShapeDtypeStruct(shape, jnp.float32)).serialize()
    except Exception as error:  # of the encoder's own code, of any type
        raise _refused(encoder, f'jax {jax.__version__}', error) from error
    about = about | {'format': 'stablehlo', 'platforms': list(PLATFORMS), 'jax': jax.__version__}
    files.write_bytes(path, program + b'\n' + _sealed(program, about))


def write_onnx(path: epath.PathLike, encoder: Encoder, about: dict[str, Any]) -> None:
    """Writes the ONNX model that jax2onnx makes, with the description in its metadata.

    Args:
        path: the file.
        encoder: float32 inputs [B, ...] to representations float32 [B, D].
        about: the description; 'ssl_extract' is its first key.

    Raises:
        UserError: jax2onnx is not installed, or cannot convert the encoder.
    """
    jax2onnx, onnx = _library('jax2onnx'), _library('onnx')
    converter = f'jax2onnx {importlib.metadata.version("jax2onnx")}'
    shape = jax.ShapeDtypeStruct(('batch', *encoder.input_shape), jnp.float32)
    names = {'input_names': [INPUTS], 'output_names': [OUTPUTS]}
    try:
        model = jax2onnx.to_onnx(_plain(encoder), [shape], opset=OPSET, **names)
        program = model.SerializeToString()
    except Exception as error:  # of jax2onnx or of the encoder's own code, of any type
        raise _refused(encoder, converter, error) from error
    about = about | {'format': 'onnx', 'opset': OPSET, 'converter': converter}
    sealed = _sealed(program, about).decode()
    # A message behind another one of its type is merged into it, and this one ends in its value.
    end = onnx.ModelProto(metadata_props=[onnx.StringStringEntryProto(key=_KEY, value=sealed)])
    files.write_bytes(path, program + end.SerializeToString())


def read_stablehlo(path: epath.PathLike) -> Victim:
    """Reads a victim, traced, that answers by the program of a file.

    Args:
        path: of `write_stablehlo`.

    Raises:
        DamagedError: the file is damaged, or no file of `write_stablehlo`.
        UserError: another version of this package, or a later JAX, wrote the file.
    """
    program, about = _opened(path, 'stablehlo')
    try:
        exported = export.deserialize(bytearray(program))
        exported.mlir_module()  # is read only when it is called, otherwise
    except Exception as error:  # of the reader of the program, of any type
        raise UserError(
            f'{path}: written by jax {about["jax"]}, and jax {jax.__version__} cannot read it '
            f'({_reason(error)}): install that version, or export the encoder again'
        ) from error
    return _victim(jax.tree_util.Partial(lambda inputs: exported.call(inputs)), True, about)


def read_onnx(path: epath.PathLike) -> Victim:
    """Reads a victim that answers by the ONNX model of a file, in onnxruntime on the CPU.

    Args:
        path: of `write_onnx`.

    Raises:
        DamagedError: the file is damaged, or no file of `write_onnx`.
        UserError: onnxruntime is not installed or cannot run the model, or another version of this
            package wrote the file.
    """
    _, about = _opened(path, 'onnx')
    onnxruntime = _library('onnxruntime')
    try:
        content = epath.Path(path).read_bytes()
        session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    except Exception as error:  # onnxruntime has types of its own, one for each status
        raise UserError(
            f'{path}: onnxruntime {onnxruntime.__version__} cannot run it ({_reason(error)}): '
            'write another format'
        ) from error

    def answer(inputs: np.ndarray) -> np.ndarray:
        return session.run([OUTPUTS], {INPUTS: np.asarray(inputs, np.float32)})[0]

    return _victim(answer, False, about)


def _plain(encoder: Encoder) -> Callable[[jax.Array], jax.Array]:
    """Makes the function of an encoder as a program for any machine.

    The network is made anew: a shared one may have been traced already, with oneDNN.
    """
    network = base.make(encoder.spec)
    variables = jax.tree.map(np.asarray, encoder.variables)  # which lie on no device

    def represent(inputs: jax.Array) -> jax.Array:
        with onednn.left_out(), jax.default_matmul_precision('highest'):
            return network.apply(variables, inputs)

    return represent


def _victim(answer: Callable, traced: bool, about: dict[str, Any]) -> Victim:
    shape = tuple(about['input_shape'])
    return Victim(about['address'], about['dim'], answer, traced, input_shape=shape, origin=about)


def _sealed(program: bytes, about: dict[str, Any]) -> bytes:
    """Returns the description as JSON, with the length and the SHA-256 of what is before it."""
    about = about | {'bytes': len(program), 'program': hashlib.sha256(program).hexdigest()}
    about[files.CHECKSUM] = files.checksum(about)
    return json.dumps(about, allow_nan=False).encode()


def _opened(path: epath.PathLike, wanted: str) -> tuple[bytes, dict[str, Any]]:
    """Reads the program and the description of a file of a format, and checks both."""
    with files.reading(path):
        content = epath.Path(path).read_bytes()
        start = content.rfind(_START)
        if start < 0:
            raise ValueError('its end, the description, is missing')
        about = json.loads(content[start:])
    stored.check_version(path, about)
    with files.reading(path):
        unsealed = {name: value for name, value in about.items() if name != files.CHECKSUM}
        program = content[: about['bytes']]
        is_whole = hashlib.sha256(program).hexdigest() == about['program']
        if not is_whole or about[files.CHECKSUM] != files.checksum(unsealed):
            raise ValueError('its content is not what was written')
        if about['format'] != wanted:
            raise ValueError(f'it is a file of the format {about["format"]}')
    return program, about


def _refused(encoder: Encoder, converter: str, error: Exception) -> UserError:
    return UserError(
        f'{converter} cannot convert {encoder.spec!r} ({_reason(error)}): write another format'
    )


def _reason(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:160]}'


def _library(name: str) -> Any:
    """Imports a library of the extra `onnx`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"format onnx: {name} cannot be imported ({error}): pip install 'ssl_extract[onnx]'"
        ) from error
