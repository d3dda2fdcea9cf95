"""Features of a set of inputs under a frozen encoder, and their checks."""

import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ssl_extract import data, numerics
from ssl_extract.data import decoding
from ssl_extract.errors import UserError
from ssl_extract.runtime import parallel

Encode = (
    tuple[Callable[[Any, jax.Array], jax.Array], Any] | Callable[[np.ndarray], np.ndarray]
)  # (apply, variables) in JAX, or a function of NumPy arrays

_IN_FLIGHT = 4  # batches dispatched ahead of the one that is fetched


def looked_up(known: Mapping[bytes, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function of inputs [n, ...] that finds the representation of each by its content.

    >>> known = dict(zip(data.hashes(np.eye(2)), np.ones((2, 3)), strict=True))
    >>> looked_up(known)(np.eye(2)[:1]).tolist()
    [[1.0, 1.0, 1.0]]

    Args:
        known: representations [D] by `data.hashes` of decoded inputs.
    """
    return lambda inputs: np.stack([known[content] for content in data.hashes(inputs)])


def represent(
    encode: Encode,
    dataset: data.Dataset,
    *,
    batch_size: int = 256,
    mesh: jax.sharding.Mesh | None = None,
) -> np.ndarray:
    """Computes the representations of a data set, float32 [N, D].

    Args:
        encode: `(apply, variables)`, see `extract`; or a function `inputs [B, ...] -> [B, D]` of
            NumPy arrays, called in order with decoded inputs, without padding.
        dataset: of N inputs.
        batch_size: inputs per call.
        mesh: of an encoder in JAX.

    Raises:
        UserError: an encoder's output is not [B, D], or not finite.
    """
    decode = data.decoder(dataset)
    if isinstance(encode, tuple):
        return extract(*encode, dataset.inputs, decode=decode, batch_size=batch_size, mesh=mesh)
    blocks = []
    starts = _starts(len(dataset.inputs), batch_size)
    for start in tqdm(starts, desc='features', unit='batch', delay=3.0):
        stored = dataset.inputs[start : start + batch_size]
        block = np.asarray(encode(np.asarray(decode(stored))), np.float32)
        blocks.append(block)
        if block.ndim != 2 or block.shape != (len(stored), blocks[0].shape[-1]):
            width = blocks[0].shape[-1] if len(blocks) > 1 else 'D'
            raise UserError(
                f'an encoder must give [{len(stored)}, {width}] for {len(stored)} inputs, this one '
                f'gives {list(block.shape)}'
            )
    return check_features(np.concatenate(blocks))


def extract(
    apply: Callable[[Any, jax.Array], jax.Array],
    variables: Any,
    inputs: np.ndarray | data.Records,
    *,
    decode: decoding.Decoder | None = None,
    batch_size: int = 256,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Computes the representations of stored inputs, float32 [N, D] on the host.

    `apply(variables, decode(inputs)) -> [B, D]` is compiled once for each input shape and batch
    size, whatever the variables: pass the same functions for every encoder of one architecture. The
    function must treat inputs independently (frozen BatchNorm), so that neither the batch size nor
    the padding of the last batch changes a row.

    Args:
        apply: the encoder, a pure function.
        variables: parameters and statistics of the encoder.
        inputs: [N, ...] as stored.
        decode: from stored inputs to the inputs of `apply`, `data.decoder(dataset)`; None for the
            default decoder of uint8 or floats.
        batch_size: inputs per call; rounded up to a multiple of the devices of `mesh`.
        mesh: batches are sharded over the mesh; None computes on the default device.
        progress: whether to show a bar, for work of more than a few seconds.

    Raises:
        UserError: there are no inputs, the type has no decoder, the outputs are not [B, D], or
            variables or outputs are not finite.
    """
    if not isinstance(inputs, data.Records):
        inputs = np.asarray(inputs)
    if inputs.ndim < 1 or inputs.size == 0:
        raise UserError(f'features are of inputs [N, ...] with N >= 1, got {list(inputs.shape)}')
    starts = _starts(len(inputs), batch_size)
    decode = decode or decoding.make('', inputs.dtype)
    place = jnp.asarray
    if mesh is not None:
        batch_size = -(-batch_size // mesh.size) * mesh.size
        starts = _starts(len(inputs), batch_size)
        place = functools.partial(parallel.put, mesh=mesh)
        variables = parallel.replicate(variables, mesh)
    if not numerics.is_finite(variables):  # while features may look finite; see `is_finite`
        raise UserError(
            "the encoder's parameters or statistics are not finite: its training has diverged; "
            'train it again with a lower learning rate, or name another encoder'
        )
    forward = _compiled(apply, decode, mesh)
    pending: collections.deque[jax.Array] = collections.deque()
    blocks: list[np.ndarray] = []
    batches = data.blocks(inputs, [slice(start, start + batch_size) for start in starts])
    shown = {'desc': 'features', 'unit': 'batch', 'delay': 3.0, 'disable': not progress}
    for batch in tqdm(batches, total=len(starts), **shown):
        padding = [(0, batch_size - len(batch))] + [(0, 0)] * (inputs.ndim - 1)
        pending.append(forward(variables, place(np.pad(batch, padding))))
        if len(pending) > _IN_FLIGHT:
            blocks.append(np.asarray(pending.popleft()))
    blocks.extend(np.asarray(block) for block in pending)
    if blocks[0].ndim != 2:
        raise UserError(f'an encoder must give [B, D], this one gives {list(blocks[0].shape)}')
    return check_features(np.concatenate(blocks)[: len(inputs)])


def _starts(length: int, batch_size: int) -> range:
    """Returns the first row of each batch."""
    if batch_size < 1:
        raise UserError(f'batch_size must be at least 1, got {batch_size}')
    return range(0, length, batch_size)


@functools.lru_cache(maxsize=64)
def _compiled(
    apply: Callable, decode: decoding.Decoder, mesh: jax.sharding.Mesh | None
) -> Callable:
    """Returns the jitted forward pass of `apply`, the same object at every call."""

    def forward(variables: Any, stored: jax.Array) -> jax.Array:
        return apply(variables, decode(stored)).astype(jnp.float32)

    return jax.jit(forward, out_shardings=None if mesh is None else parallel.replicated(mesh))


def check_features(features: np.ndarray, name: str = 'features', width: int = 0) -> np.ndarray:
    """Checks features and returns them as float32 [N, D].

    Args:
        features: [N, D].
        name: of the features, for an error message.
        width: the expected D; 0 accepts any width.

    Raises:
        UserError: the features are empty, not finite, or of another width.
    """
    features = np.asarray(features)
    if features.ndim != 2 or 0 in features.shape:
        raise UserError(f'{name} must be [N, D] with N, D >= 1, got {list(features.shape)}')
    if width and features.shape[1] != width:
        raise UserError(f'{name} must have width {width}, got {features.shape[1]}')
    features = features.astype(np.float32, copy=False)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise UserError(
            f'{name} hold NaN or infinity in {np.sum(~finite)} of {len(finite)} rows '
            f'(first: row {np.argmin(finite)}): the encoder has diverged'
        )
    return features


def check_labels(
    labels: np.ndarray | None, n: int, num_classes: int, name: str = 'labels'
) -> np.ndarray:
    """Checks labels and returns them as int32 [n].

    Args:
        labels: int [n], or None for a set without labels.
        n: number of examples.
        num_classes: of the task.
        name: of the labels, for an error message.

    Raises:
        UserError: labels are missing, are not [n] integers, or lie outside of [0, num_classes).
    """
    if labels is None:
        raise UserError(f'{name} are missing: a task needs a set with labels')
    labels = np.asarray(labels)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f'{name} must be {n} integers, one for each row of the features, '
            f'got {labels.dtype} {list(labels.shape)}'
        )
    if num_classes < 2:
        raise UserError(f'num_classes must be at least 2, got {num_classes}')
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f'{name} must lie in [0, {num_classes}), got {labels.min()} to {labels.max()}'
        )
    return labels.astype(np.int32)


def check_training_set(
    features: np.ndarray, labels: np.ndarray | None, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Checks labeled features for training and returns them.

    A class may have no example, as in sets that declare more classes than they hold: no classifier
    predicts such a class.

    Raises:
        UserError: features or labels do not fit, or all examples are of one class.
    """
    features = check_features(features, 'training features')
    labels = check_labels(labels, len(features), num_classes, 'training labels')
    if labels.min() == labels.max():
        raise UserError(
            f'training labels are all of class {labels[0]}: use examples of two classes or more'
        )
    return features, labels
