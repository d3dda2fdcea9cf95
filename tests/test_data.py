"""Sets are prepared here by builders that yield PNG bytes, so that TensorFlow is never needed."""

import io
import os
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ssl_extract import data, tfds_sets
from ssl_extract.errors import UserError


def _images(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def _png(image):
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, format='PNG')
    return io.BytesIO(buffer.getvalue())


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set that has what its class attributes say."""

    VERSION = tfds.core.Version('1.0.0')
    FEATURES: dict
    SPLITS: dict  # of lists of examples

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(self.FEATURES)
        )

    def _split_generators(self, dl_manager):
        return {split: enumerate(examples) for split, examples in self.SPLITS.items()}

    def _generate_examples(self):
        raise NotImplementedError


RGB = {'train': _images(30, (6, 6, 3), 0), 'test': _images(12, (6, 6, 3), 1)}
GRAY = _images(5, (4, 4, 1), 2)
WIDE = [_images(1, (4, 4 + 2 * i, 3), 3)[0] for i in range(3)]
_IMAGE = tfds.features.Image(shape=(None, None, 3))


class RgbSet(_Builder, skip_registration=True):
    FEATURES = {'image': _IMAGE, 'label': tfds.features.ClassLabel(num_classes=3)}
    SPLITS = {
        split: [{'image': _png(x), 'label': i % 3} for i, x in enumerate(images)]
        for split, images in RGB.items()
    }


class GraySet(_Builder, skip_registration=True):
    """Gray, and its images and classes go by other names."""

    FEATURES = {
        'picture': tfds.features.Image(shape=(4, 4, 1)),
        'kind': tfds.features.ClassLabel(names=['a', 'b']),
    }
    SPLITS = {'train': [{'picture': _png(x), 'kind': 1} for x in GRAY]}


class UnlabelledSet(_Builder, skip_registration=True):
    FEATURES = {'image': _IMAGE}
    SPLITS = {'train': [{'image': _png(x)} for x in RGB['train']]}


class HalfLabelledSet(_Builder, skip_registration=True):
    FEATURES = RgbSet.FEATURES
    SPLITS = {'train': [{'image': _png(x), 'label': 1 - 2 * (i > 3)} for i, x in enumerate(GRAY)]}


class WideSet(_Builder, skip_registration=True):
    FEATURES = RgbSet.FEATURES
    SPLITS = {'train': [{'image': _png(x), 'label': 0} for x in WIDE]}


class TwoImageSet(_Builder, skip_registration=True):
    FEATURES = {'left': _IMAGE, 'right': _IMAGE}
    SPLITS = {'train': [{'left': _png(x), 'right': _png(x)} for x in RGB['test']]}


def _prepare(builder, folder):
    builder(data_dir=folder, file_format='array_record').download_and_prepare()


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tfds')
    for builder in (RgbSet, GraySet, UnlabelledSet, WideSet, TwoImageSet):
        _prepare(builder, folder)
    return str(folder)
