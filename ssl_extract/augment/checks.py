"""Checks of inputs and arguments of an augmentation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ssl_extract import padding
from ssl_extract.augment.base import fitting
from ssl_extract.errors import UserError


def check_image(image: jax.Array, name: str, channels: int | None = None) -> None:
    """Checks one image of an operation: by its shape, and by its values outside of `jit`.

    Args:
        image: float `[H, W, C]` in [0, 1].
        name: of the operation, for an error message.
        channels: the only accepted C; None accepts any.

    Raises:
        UserError: the image has another shape, or its values are no floats in [0, 1].
    """
    if image.ndim != 3 or channels not in (None, image.shape[-1]):
        raise UserError(
            f'{name} takes an image [H, W, {channels or "C"}], got {list(image.shape)}: write '
            f"'none', or {_fitting(image)}"
        )
    check_range(image, name)


def check_wave(wave: jax.Array, name: str) -> None:
    """Checks one waveform of an operation: by its shape, and by its values outside of `jit`.

    Args:
        wave: float `[T]` in (-1, 1), with -1 behind its end.
        name: of the operation, for an error message.

    Raises:
        UserError: the waveform has another shape, or its values are no floats in [-1, 1].
    """
    if wave.ndim != 1:
        raise UserError(
            f"{name} takes a waveform [T], got {list(wave.shape)}: write 'none', or "
            f'{_fitting(wave)}'
        )
    check_range(wave, name, low=padding.PADDING)


def check_range(values: jax.Array, name: str, low: float = 0.0) -> None:
    """Checks that values are floats in [low, 1]; under `jit` the type alone can be checked.

    Args:
        values: float, of any shape.
        name: of the operation or the set, for an error message.
        low: the least value: 0 of images, -1 of waveforms.

    Raises:
        UserError: values are no floats, are not finite, or lie outside of [low, 1].
    """
    wanted, what = f'floats in [{low:g}, 1]', 'images' if low == 0 else 'waveforms'
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise UserError(f'{name} takes {wanted}, got {values.dtype}: decode {what} first')
    if isinstance(values, jax.core.Tracer) or not values.size:
        return
    least, most = float(values.min()), float(values.max())
    if not (least >= low and most <= 1):
        raise UserError(
            f'{name} takes {wanted}, got {least:.4g} to {most:.4g}: decode {what} first, or divide '
            'the values by their largest'
        )


def check_order(field: str, value: Sequence[float]) -> None:
    """Raises UserError, naming `field`, unless bounds are in order."""
    require(value[0] <= value[1], field, value, 'the smaller number first')


def require(ok: bool, field: str, value: object, accepted: str) -> None:
    """Raises UserError, naming `field`, its value and what is accepted, unless `ok`."""
    if not ok:
        raise UserError(f'{field} is {value!r}: write {accepted}')


def check_tokens(row: jax.Array, name: str) -> None:
    """Checks one text of an operation.

    Args:
        row: float `[T]`, decoded tokens with -1 behind them.
        name: of the operation, for an error message.

    Raises:
        UserError: the text has another shape, or its values are no floats.
    """
    if row.ndim != 1 or not jnp.issubdtype(row.dtype, jnp.floating):
        raise UserError(
            f'{name} takes decoded tokens, float [T], got {row.dtype}{list(row.shape)}: write '
            f"'none', or {_fitting(row)}"
        )


def _fitting(values: jax.Array) -> str:
    """Names the operations that take inputs with so many axes, of each kind."""
    kinds = {1: ('waves', 'tokens'), 3: ('images',)}.get(values.ndim, ())
    return ', or '.join(map(fitting, kinds)) or 'an operation that fits'
