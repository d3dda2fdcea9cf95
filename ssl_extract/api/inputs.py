"""Inputs and labels of the facade, checked."""

import contextlib
import inspect
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import augment, data
from ssl_extract.data import Dataset
from ssl_extract.errors import UserError
from ssl_extract.runtime import files, locks

Inputs = np.ndarray | Dataset
Labeled = tuple[np.ndarray, np.ndarray] | Dataset


def dataset_of(value: Any, name: str, labeled: bool = False) -> Dataset:
    """Returns inputs, a pair (inputs, labels) or a `Dataset` as a checked `Dataset`.

    Args:
        value: the argument of the user.
        name: the name in an error message.
        labeled: whether labels are required.

    Raises:
        UserError: the inputs or the labels are wrong; the message names the argument.
    """
    if not isinstance(value, Dataset):
        if labeled and not (isinstance(value, tuple | list) and len(value) == 2):
            raise UserError(f'{name} must be a pair (inputs, labels) or a Dataset')
        inputs, labels = value if labeled else (value, None)
        value = Dataset(_as_array(inputs, name), None if labels is None else np.asarray(labels))
        if labels is not None and value.labels.size and value.labels.dtype.kind in 'iu':
            value = value._replace(num_classes=int(value.labels.max()) + 1)
    dataset = data.checked(value._replace(name=name))
    if labeled:
        data.require_labels(dataset)
    return dataset


def _as_array(inputs: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(inputs)
    except ValueError:
        raise UserError(f'{name}: inputs must be one array [N, ...], all of one shape') from None


def decoded_shape(dataset: Dataset) -> tuple[int, ...]:
    """Returns the shape of one input as encoders see it."""
    stored = jax.ShapeDtypeStruct((1, *dataset.inputs.shape[1:]), dataset.inputs.dtype)
    return jax.eval_shape(data.decoder(dataset), stored).shape[1:]


def check_shape(dataset: Dataset, wanted: tuple[int, ...] | None, taken_by: str) -> None:
    """Raises UserError unless the inputs have the shape that a victim or an encoder takes.

    Args:
        dataset: the inputs.
        wanted: the shape of one input; None takes every shape.
        taken_by: the victim or the encoder, for the message.
    """
    shape = decoded_shape(dataset)
    if wanted is not None and shape != tuple(wanted):
        raise UserError(
            f'{dataset.name}: each input is {list(shape)}, and {taken_by} takes {list(wanted)}: '
            'give inputs of that shape'
        )


def view_of(spec: str, dataset: Dataset, name: str) -> augment.Op:
    """Makes an augmentation that takes the inputs of a set.

    Args:
        spec: the spec of the augmentation.
        dataset: the inputs.
        name: the argument that an error message names.

    Raises:
        UserError: the augmentation is unknown, does not fit the shape of the inputs, or changes
            images whose values do not lie in [0, 1], or waveforms not in [-1, 1].
    """
    view, shape = augment.make(spec), decoded_shape(dataset)
    example = jax.ShapeDtypeStruct(shape, jnp.float32)
    reason = "write 'none' or one that does"
    try:
        fits = jax.eval_shape(view, jax.random.key(0), example).shape == tuple(shape)
    except UserError as error:
        fits, reason = False, str(error)
    except (TypeError, ValueError, IndexError):
        fits = False
    if not fits:
        raise UserError(f'{name}={spec!r} does not fit inputs {list(shape)}: {reason}')
    if spec not in ('', 'none'):
        data.check_kind(dataset, augment.takes(spec), f'{name}={spec!r}')
    return view


def check_loss(loss: Callable, dim: int, labels: np.ndarray | None) -> None:
    """Raises UserError unless a loss takes the arguments of `losses.Loss` and gives a scalar.

    Args:
        loss: the loss.
        dim: the width of an answer.
        labels: int[N], or None without labels.
    """
    usage = 'loss(student [B, D], teacher [B, D], *, labels=None, where=None) -> float []'
    try:
        inspect.signature(loss).bind(None, None, labels=None, where=None)
    except TypeError as error:
        raise UserError(f'loss: {error}; write {usage}') from None
    rows = jax.ShapeDtypeStruct((4, dim), jnp.float32)
    classes = None if labels is None else jnp.zeros(4, jnp.int32)
    where = jnp.ones(4, bool)
    value = jax.eval_shape(lambda s, t: loss(s, t, labels=classes, where=where), rows, rows)
    if getattr(value, 'shape', None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise UserError(f'loss: it gives {value}, and not one number; write {usage}')


@contextlib.contextmanager
def opened(folder: epath.PathLike | None) -> Iterator[epath.Path]:
    """Yields the folder of a call, locked; None yields a folder that is removed afterwards."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield epath.Path(temporary)
        return
    where = files.absolute(folder)
    with locks.lock(where / '.lock', str(where)):
        files.remove_temporary(where)
        yield where
