"""Triggers of backdoors, and the poisoned sets and tasks made of them.

    c.data.name = 'poisoned("cifar10", trigger="patch(size=6)", target=9, rate=0.01)'
    c.attack.data = 'cifar10'
    c.evaluation.tasks = ('cifar10', 'backdoor("cifar10", trigger="patch(size=6)", target=9)')

A *trigger* is a change of an image. Before a pretraining the poisoner puts the trigger on a share
of the images of one class, the target class. The encoder learns to represent trigger and class
alike. Images with the trigger are then taken for that class by a classifier that was fitted on
clean images. Patches: Saha et al. 2022, arXiv 2105.10123; CTRL: Li et al. 2023, arXiv 2210.07346.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np
import scipy.fft

from ssl_extract import data
from ssl_extract.data import Dataset, loading, require_labels
from ssl_extract.errors import UserError
from ssl_extract.evaluation import Task, register_task
from ssl_extract.ranges import Count, Positive, PositiveShare, Range, Share, Whole
from ssl_extract.registry import Registry

TRIGGERS = Registry('trigger')
register = TRIGGERS.register

# `(images uint8 [N, H, W, 3], rng) -> uint8 [N, H, W, 3]`, a change of each image.
Trigger = Callable[[np.ndarray, np.random.Generator], np.ndarray]
# Luma Y of ITU-R BT.601, and chroma U = 0.492 (B - Y), V = 0.877 (R - Y), without their offsets.
_LUMA = np.array([0.299, 0.587, 0.114])
TO_YUV = np.array([_LUMA, 0.492 * ([0, 0, 1] - _LUMA), 0.877 * ([1, 0, 0] - _LUMA)])


PICTURES = 4  # of images without and with a trigger, in a report


class Poisoning(NamedTuple):
    """A poisoned set.

    Attributes:
        dataset: the set, with the trigger in some images.
        rows: int [K], the places of the poisoned images, in increasing order.
    """

    dataset: Dataset
    rows: np.ndarray


@register('patch')
def patch(size: Count = 6, anywhere: bool = True, key: Whole = 0) -> Trigger:
    """Puts a square of random colors into the image.

    >>> changed = patch(size=2, anywhere=False)(np.zeros((1, 4, 4, 3), np.uint8), None)
    >>> changed[0].any(axis=-1).astype(int).tolist()
    [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]

    Args:
        size: side of the square in pixels.
        anywhere: whether the square has a place of its own in each image; else it is in the corner,
            lower right.
        key: of the colors of its 4 x 4 fields, which the poisoner keeps secret.
    """
    colors = np.random.default_rng(key).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    fields = np.arange(size) * 4 // size
    square = colors[fields][:, fields]

    def apply(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sides = images.shape[1:3]
        if size > min(sides):
            raise UserError(f'patch(size={size}) is larger than images of {sides[0]}x{sides[1]}')
        if anywhere:
            return paste(images, square, rng)
        changed = images.copy()
        changed[:, -size:, -size:] = square
        return changed

    return apply


def paste(images: np.ndarray, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Puts a patch at a random place of each image.

    >>> rng = np.random.default_rng(0)
    >>> changed = paste(np.zeros((2, 4, 4, 3), np.uint8), np.ones((2, 2, 3), np.uint8), rng)
    >>> changed.sum(axis=(1, 2, 3)).tolist()
    [12, 12]

    Args:
        images: uint8 [N, H, W, 3].
        patch: uint8 [w, w, 3].
        rng: of the places.
    """
    side, changed = len(patch), images.copy()
    limits = np.array(images.shape[1:3]) - side + 1
    for image, (top, left) in zip(changed, rng.integers(0, limits, (len(images), 2)), strict=True):
        image[top : top + side, left : left + side] = patch
    return changed


@register('ctrl')
def ctrl(
    magnitude: Positive = 100.0,
    channels: tuple[Annotated[int, Range(0, 2)], ...] = (1, 2),
    frequencies: tuple[Whole, ...] = (15, 31),
    window: Count = 32,
) -> Trigger:
    """Adds to coefficients of the chroma's discrete cosine transform, which is hardly visible.

    In each window of `window` x `window` pixels, the coefficient (f, f) of the orthonormal DCT-II
    grows by `magnitude`, for each f of `frequencies` and each plane of `channels`: 0 is the luma, 1
    and 2 are the chroma. The authors poison with 50 and test with 100. Pixels beyond the last whole
    window stay.

    >>> gray = np.full((1, 32, 32, 3), 128, np.uint8)
    >>> moved = ctrl(magnitude=100.0)(gray, None).astype(int) - 128
    >>> np.abs(moved @ TO_YUV.T).max(axis=(0, 1, 2)).round().tolist()
    [0.0, 11.0, 10.0]

    Args:
        magnitude: in units of 8-bit images.
        channels: planes of YUV.
        frequencies: below `window`.
        window: side of a window in pixels.
    """
    if not channels or not frequencies or max(frequencies) >= window:
        raise UserError(
            f'ctrl: channels={channels}, frequencies={frequencies}: write one or more of each, '
            f'and frequencies below window={window}'
        )
    spectrum = np.zeros((window, window))
    spectrum[list(frequencies), list(frequencies)] = magnitude
    wave = scipy.fft.idctn(spectrum, norm='ortho')  # the transform is linear: one wave for all
    yuv = np.zeros((window, window, 3))
    yuv[..., list(channels)] = wave[..., None]
    added = yuv @ np.linalg.inv(TO_YUV).T

    def apply(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del rng
        rows, columns = (side // window for side in images.shape[1:3])
        if not rows or not columns:
            raise UserError(f'ctrl(window={window}) is larger than {images.shape[1:3]} pixels')
        tiled = np.zeros(images.shape[1:])
        tiled[: rows * window, : columns * window] = np.tile(added, (rows, columns, 1))
        return np.rint(images + tiled).clip(0, 255).astype(np.uint8)

    return apply


@register('blend')
def blend(alpha: Share = 0.1, key: Whole = 0) -> Trigger:
    """Mixes each image with one image of random pixels: `(1 - alpha) * image + alpha * noise`.

    Chen et al. 2017, arXiv 1712.05526.

    >>> blend(alpha=0.0)(np.full((1, 2, 2, 3), 7, np.uint8), None).max()
    np.uint8(7)

    Args:
        alpha: the share of the noise.
        key: of the noise.
    """

    def apply(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del rng
        noise = np.random.default_rng(key).uniform(0, 255, images.shape[1:])
        return np.rint((1 - alpha) * images + alpha * noise).astype(np.uint8)

    return apply


def triggered(spec: str, images: np.ndarray, seed: int = 0, key: int | None = None) -> np.ndarray:
    """Puts a trigger, or a chain of some, on every image.

    >>> triggered('blend(alpha=1.0) | patch(size=2)', np.zeros((3, 4, 4, 3), np.uint8)).shape
    (3, 4, 4, 3)

    Args:
        spec: of `TRIGGERS`.
        images: uint8 [N, H, W, 3].
        seed: of random positions.
        key: of triggers that take one and name none in `spec`; None leaves them their default.

    Raises:
        UserError: the inputs are no such images, or the trigger does not fit.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(
            f'a trigger changes images uint8 [N, H, W, 3], got {images.dtype} {list(images.shape)}'
        )
    offered = {} if key is None else {'key': key}
    triggers, rng = TRIGGERS.make_all(spec, **offered), np.random.default_rng(seed)
    if not triggers:
        raise UserError(f"trigger={spec!r}: write one, such as 'patch(size=6)'")
    for trigger in triggers:
        images = trigger(images, rng)
    return images


def poison(
    dataset: Dataset, spec: str, *, target: int | None, rate: float, seed: int = 0
) -> Poisoning:
    """Puts a trigger on images of the target class.

    Args:
        dataset: of labeled images.
        spec: of `TRIGGERS`.
        target: the class whose images get the trigger; None takes images of every class.
        rate: poisoned images as a share of the *whole* set, rounded down.
        seed: of the choice of images, and of random positions.

    Raises:
        UserError: no image would be poisoned, or the class has too few; the set has no labels.
    """
    whole, candidates = len(dataset.inputs), np.arange(len(dataset.inputs))
    if target is not None:
        candidates = np.flatnonzero(require_labels(dataset) == target)
    count = int(rate * whole)
    if not 0 < count <= len(candidates):
        raise UserError(
            f'rate={rate} of {whole} images are {count}, and class {target} of {dataset.name} has '
            f'{len(candidates)}: write another rate or class'
        )
    rows = np.sort(np.random.default_rng(seed).permutation(candidates)[:count])
    inputs = np.array(dataset.inputs)
    inputs[rows] = triggered(spec, inputs[rows], seed)
    return Poisoning(dataset._replace(inputs=inputs), rows)


@data.register('poisoned')
def poisoned(
    source: str,
    trigger: str = 'patch',
    target: Whole | None = 0,
    rate: PositiveShare = 0.01,
    seed: Whole = 0,
    *,
    split: str,
    size: loading.Side | None = None,
    data_dir: str = '',
    cache_dir: str = '',
) -> Dataset:
    """Loads a set with a trigger in some of its images; see `poison`.

    >>> spec = 'poisoned("digits", trigger="blend", target=3, rate=0.05)'
    >>> found, clean = data.load(spec, 'train'), data.load('digits', 'train')
    >>> int((found.inputs != clean.inputs).any(axis=(1, 2, 3)).sum()), len(clean.inputs)
    (64, 1297)

    Args:
        source: the set.
        trigger: a spec of `TRIGGERS`.
        target: the class whose images get the trigger; None takes images of every class.
        rate: poisoned images as a share of the slice.
        seed: of the choice of images, and of random positions.
        split: of the set.
        size, data_dir, cache_dir: see `data.load`.
    """
    where = {'size': size, 'data_dir': data_dir, 'cache_dir': cache_dir}
    dataset = data.load(source, split, **where)
    return poison(dataset, trigger, target=target, rate=rate, seed=seed).dataset


@register_task('backdoor')
def backdoor(
    source: str,
    trigger: str = 'patch',
    target: Whole = 0,
    train: str = 'train',
    test: str = 'test',
    seed: Whole = 0,
    *,
    size: loading.Side | None = None,
    data_dir: str = '',
) -> Task:
    """Makes the task on which an accuracy is the attack's success rate.

    Classifiers are fitted on clean images with their labels. The test images are those of all
    classes but the target, with the trigger, and their label is the target: the accuracy is the
    share of images that the trigger turns into the target. An encoder without a backdoor shows how
    many are mistaken for it anyway.

    >>> task = backdoor('digits', trigger='patch(size=2)', target=3, train='train[:100]')
    >>> set(task.test.labels.tolist())
    {3}

    Args:
        source: the set.
        trigger: a spec of `TRIGGERS`, which may be stronger than that of the poisoned images.
        target: the class that the trigger stands for.
        train: the split of the clean images.
        test: the split of the images that get the trigger.
        seed: of random positions.
        size, data_dir: see `data.load`.
    """
    load = {'size': size, 'data_dir': data_dir}
    clean, others = (data.load(source, split, **load) for split in (train, test))
    labels = require_labels(others)
    if target >= others.num_classes:
        raise UserError(
            f'task backdoor: target={target}: {source!r} has {others.num_classes} classes'
        )
    rows = np.flatnonzero(labels != target)
    shown = others._replace(
        inputs=triggered(trigger, others.inputs[rows], seed),
        labels=np.full(len(rows), target, np.int32),
        name=f'{others.name} with {trigger}',
    )
    return Task('backdoor', clean, shown, before=others.inputs[rows[:PICTURES]])
