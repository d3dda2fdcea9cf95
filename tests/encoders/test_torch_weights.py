"""Weights of PyTorch: answers that PyTorch gave, and files that do not fit.

`python -m benchmarks.torch_parity --fixtures=tests/golden/torch` wrote the files, with torchvision
2 channels wide and timm 12 wide, under the names of public files.
"""

import importlib
import os
import pathlib
import pickle
import sys

import jax
import numpy as np
import paper_imagenet
import pytest
import safetensors.numpy

from ssl_extract import encoders
from ssl_extract.encoders import Network, torch_files, torch_names, torch_weights
from ssl_extract.encoders.normalize import normalize
from ssl_extract.encoders.trained import content_hash
from ssl_extract.errors import UserError
from ssl_extract.runtime import parallel
from ssl_extract.victims import SOURCES, endpoints, from_encoder

FOLDER = pathlib.Path(__file__).parent.parent / 'golden' / 'torch'
FILES = {  # file -> the prefix of the encoder that its authors evaluate, and what is left out
    'simclr': ('state_dict.backbone.', {'state_dict.backbone.fc.0.weight'}),
    'simsiam': ('state_dict.module.encoder.', {'state_dict.module.predictor.0.weight'}),
    'moco': ('state_dict.module.encoder_q.', {'state_dict.module.queue'}),
    'byol': ('online_network_state_dict.encoder.', {'target_network_state_dict.encoder.0.weight'}),
    'dino': ('teacher.backbone.', {'student.module.backbone.norm.weight'}),
    'timm': ('', {'head.weight', 'head.bias'}),
}
SIMCLR = 'resnet18(stem="cifar", stages=(1, 1), width=2)'
VIT = 'vit(depth=2, width=12, heads=3, patch=4)'


def path_of(name):
    return FOLDER / f'{name}.safetensors'


def golden(name):
    """The spec of the encoder, images in [0, 1], and PyTorch's answers."""
    with np.load(FOLDER / f'{name}.npz') as arrays:
        return str(arrays['spec']), arrays['images'].astype(np.float32) / 255, arrays['answers']


def changed(name, tmp_path, **arrays):
    """The file with other arrays; None removes one; '__' is a dot."""
    content = safetensors.numpy.load_file(path_of(name))
    content |= {key.replace('__', '.'): array for key, array in arrays.items()}
    path = tmp_path / 'changed.safetensors'
    kept = {key: np.ascontiguousarray(a) for key, a in content.items() if a is not None}
    path.write_bytes(safetensors.numpy.save(kept))
    return path


def told(call):
    """The line of an error."""
    with pytest.raises(UserError) as caught:
        call()
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('name', FILES)
def test_a_file_answers_here_as_in_pytorch(name):
    spec, images, answers = golden(name)
    loaded = torch_weights.load(path_of(name), spec, images.shape[1])
    np.testing.assert_allclose(loaded.encoder.apply(images), answers, 1e-5, 1e-5 * answers.max())
    prefix, left_out = FILES[name]
    assert loaded.prefix == prefix and left_out <= {*loaded.left_out}
    read = torch_files.read(path_of(name)).keys() - loaded.left_out
    assert read and all(k.startswith(prefix) for k in read)
    assert not any(k.removeprefix(prefix).startswith(('fc', 'head')) for k in read)


@pytest.mark.parametrize('name', ['simclr', 'simsiam'])
def test_a_projection_head_answers_here_as_in_pytorch(name):
    spec, images, _ = golden(name)
    with np.load(FOLDER / f'{name}.npz') as arrays:
        head, projections = str(arrays['head']), arrays['projections']
    loaded = torch_weights.load(path_of(name), spec, images.shape[1], head=head)
    assert loaded.encoder.heads == (('head', head),)
    assert not any('.fc.' in left_out for left_out in loaded.left_out)
    victim = endpoints.at(from_encoder(loaded.encoder), 'projection')
    np.testing.assert_allclose(victim.answer(images), projections, 1e-4, 1e-4)


@pytest.mark.parametrize(
    ('name', 'head', 'said'),
    [
        ('simclr', 'simclr(hidden=5, dim=2)', 'linear1.bias [3] for [5]'),
        (
            'simclr',
            'simsiam_projector(hidden=3, dim=2)',
            'it lacks bn1.bias, bn1.weight, ',
        ),
        ('simsiam', 'linear(dim=16)', 'without a place are'),
        (
            'moco',
            'linear(dim=2)',
            "fit head 'linear(dim=2)': it lacks linear1.bias, linear1.weight",
        ),
    ],
)
def test_another_head_is_refused_with_the_names(name, head, said):
    spec, images, _ = golden(name)
    line = told(lambda: torch_weights.load(path_of(name), spec, images.shape[1], head=head))
    assert said in line, line


def test_another_encoder_of_a_file_is_read_by_its_prefix():
    spec, images, answers = golden('moco')
    prefix = 'state_dict.module.encoder_k.'
    keys = torch_weights.load(path_of('moco'), spec, 32, prefix).encoder
    assert np.abs(keys.apply(images) - answers).max() > 0.1 * answers.max()
    line = told(lambda: torch_weights.load(path_of('moco'), spec, 32, 'module.'))
    assert "prefix='module.': it holds encoders under" in line and repr(prefix) in line


def test_two_encoders_of_which_none_is_preferred_are_refused(tmp_path):
    content = safetensors.numpy.load_file(path_of('simclr'))
    path = tmp_path / 'two.safetensors'
    two = content | {k.replace('state_dict', 'state_dict_ema'): a for k, a in content.items()}
    path.write_bytes(safetensors.numpy.save(two))
    line = told(lambda: torch_weights.load(path, SIMCLR, 9))
    assert "under 'state_dict.backbone.', 'state_dict_ema.backbone.'; write one" in line
    assert torch_weights.load(path, SIMCLR, 9, 'state_dict_ema.backbone.').encoder.dim == 4


def test_a_sequential_without_a_max_pool_starts_its_stages_at_three():
    content = safetensors.numpy.load_file(path_of('byol'))
    prefix = FILES['byol'][0]
    counted = {  # no max-pool between the stem and the stages
        f'f.{int(first) - (int(first) > 1)}.{rest}': array
        for first, _, rest in (k.removeprefix(prefix).partition('.') for k in content)
        if first.isdecimal()
        for array in [content[f'{prefix}{first}.{rest}']]
    }
    names = torch_names.parts_of(counted, torch_names.RESNET)['f.']
    assert names['layer1.0.conv1.weight'] == 'f.3.0.conv1.weight'
    assert names['conv1.weight'] == 'f.0.weight' and names['bn1.bias'] == 'f.1.bias'
    assert names['layer2.0.downsample.1.running_var'] == 'f.4.0.downsample.1.running_var'


# --- what does not fit -------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'spec', 'size', 'said'),
    [
        (
            'simclr',
            'resnet18(stem="cifar", stages=(1, 1, 1), width=2)',
            9,
            ('it lacks layer3.0', 'stages=(1, 1), stem'),
        ),
        ('simclr', 'resnet18(stem="cifar", stages=(1,), width=2)', 9, ('without a place are',)),
        ('simclr', 'resnet50(stem="cifar", stages=(1, 1), width=2)', 9, ('block="basic"',)),
        (
            'simclr',
            'resnet18(stages=(1, 1), width=2)',
            9,
            ('conv1.weight [3, 3, 3, 2] for [7, 7, 3, 2]; the file holds', 'stem="cifar"'),
        ),
        (
            'simclr',
            'resnet18(stem="cifar", stages=(1, 1))',
            9,
            ('bn1.bias [2] for [64], ', ' and 27 more; the file', 'width=2)'),
        ),
        ('simclr', VIT, 8, ('it holds no vision transformer', 'backbone.bn1.bias')),
        ('timm', SIMCLR, 8, ('it holds no ResNet with the names of public files', 'blocks.0')),
        ('dino', VIT, 12, ('pos_embed [1, 5, 12] for [1, 10, 12]', 'patch=4) for size=8')),
        ('dino', 'vit(depth=2, width=6, heads=3, patch=4)', 8, ('vit(depth=2, width=12',)),
        ('dino', 'vit(depth=1, width=12, heads=3, patch=4)', 8, ('blocks.1.', 'vit(depth=2')),
        ('dino', 'vit(depth=2, width=12, heads=3, patch=3)', 8, ('patch=3 does not cut',)),
    ],
)
def test_another_architecture_is_refused_with_the_names(name, spec, size, said):
    line = told(lambda: torch_weights.load(path_of(name), spec, size))
    assert all(text in line for text in said), line
    assert len(line) < 600


def test_an_array_that_the_encoder_has_no_place_for_is_refused(tmp_path):
    gate = np.ones(2, np.float32)
    path = changed('simclr', tmp_path, state_dict__backbone__layer1__0__se__weight=gate)
    line = told(lambda: torch_weights.load(path, SIMCLR, 9))
    assert 'without a place are layer1.0.se.weight; the file holds resnet(' in line


def test_an_encoder_without_a_counterpart_is_refused(registries_restored):
    network = encoders.make(SIMCLR)
    encoders.register('mine')(
        lambda: network._replace(init=lambda key, x: {'params': {'w': x}, 'batch_stats': {}})
    )
    line = told(lambda: torch_weights.load(path_of('simclr'), 'mine', 9))
    assert "encoder 'mine' has no counterpart in files of PyTorch: write resnet18," in line


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    bad = np.full(2, np.nan, np.float32)
    path = changed('simclr', tmp_path, state_dict__backbone__bn1__running_mean=bad)
    assert 'hold NaN, infinity' in told(lambda: torch_weights.load(path, SIMCLR, 9))


def test_half_precision_is_read(tmp_path):
    content = safetensors.numpy.load_file(path_of('simclr'))
    half = {key: array.astype(jax.numpy.bfloat16) for key, array in content.items()}
    path = tmp_path / 'half.safetensors'
    path.write_bytes(safetensors.numpy.save(half))
    arrays = torch_files.read(path)
    assert {a.dtype for a in arrays.values()} == {np.dtype('float32')}
    for key, array in arrays.items():
        np.testing.assert_allclose(array, content[key], 4e-3)


def test_broken_files_are_told_in_one_line(tmp_path):
    whole = path_of('simclr').read_bytes()
    with pytest.raises(UserError, match="unknown encoder 'resnet19'"):
        SOURCES.make("torch('nowhere.pth', encoder='resnet19', size=9)")
    path = tmp_path / 'mine.safetensors'
    load = SOURCES.make(f'torch(path={str(path)!r}, encoder={SIMCLR!r}, size=9)')
    assert 'is not there' in told(lambda: load(None))
    assert 'copy it to a local disk' in told(lambda: torch_files.read('gs://bucket/a.pth'))
    for content in (b'', whole[:40], whole[:-8], b'{}' * 99):
        path.write_bytes(content)
        line = told(lambda: load(None))
        assert 'cannot read' in line and 'put it back from a copy, or name another file' in line
    path.write_bytes(safetensors.numpy.save({}))
    assert 'it holds no ResNet' in told(lambda: load(None))


class Code:
    def __reduce__(self):
        return os.mkdir, ('made_by_a_pickle',)


def test_without_pytorch_a_pickle_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, 'torch', None)  # as if not installed
    pathlib.Path('mine.pth').write_bytes(pickle.dumps({'conv1.weight': Code()}))
    line = told(lambda: torch_weights.load('mine.pth', SIMCLR, 9))
    assert "not installed: pip install 'ssl_extract[torch]', or save" in line
    assert not pathlib.Path('made_by_a_pickle').exists()


def test_without_timm_the_benchmark_says_what_to_install(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER.parent.parent.parent))
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(SystemExit, match=r"not installed: pip install 'ssl_extract\[benchmark\]'"):
        importlib.import_module('benchmarks.torch_parity')


# --- the source, and normalization -------------------------------------------


def test_the_source_makes_a_victim_of_its_content():
    _, images, answers = golden('simclr')
    source = f'torch(path={str(path_of("simclr"))!r}, encoder={SIMCLR!r}, size=9)'
    victim = SOURCES.make(source)(parallel.data_mesh())
    assert victim.traced and (victim.dim, victim.input_shape) == (4, (9, 9, 3))
    assert victim.address == content_hash(victim.encoder)
    np.testing.assert_allclose(victim.answer(images[:4]), answers[:4], 1e-4, 1e-5)
    note = victim.origin['note']
    assert "read from 'state_dict.backbone.*'; left out: state_dict.backbone.fc.0.bias," in note


def test_the_papers_imagenet_victim_is_simsiams_file():
    c = paper_imagenet.get_config('checkpoint_0099.pth.tar')
    load = SOURCES.make(c.victim.source)  # reads nothing
    assert c.victim.source.endswith("encoder='normalize | resnet50', size=224)")
    assert 'checkpoint_0099.pth.tar is not there' in told(lambda: load(None))


PIXELS = Network(  # answers with the mean color
    init=lambda key, images: {'params': {}, 'batch_stats': {}},
    apply=lambda variables, images: images.mean((1, 2)),
    train=lambda variables, images: (images.mean((1, 2)), {}),
)


@pytest.mark.parametrize(
    ('arguments', 'mean', 'std'),
    [
        ({}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # of torchvision's models
        ({'preset': 'inception'}, (0.5,) * 3, (0.5,) * 3),
        ({'mean': (0.1, 0.2, 0.3), 'std': (1, 2, 4)}, (0.1, 0.2, 0.3), (1, 2, 4)),
    ],
)
def test_normalize_shifts_and_scales_the_images_of_the_next_encoder(arguments, mean, std):
    network = normalize(**arguments, encoder=PIXELS)
    images = np.random.default_rng(0).random((4, 2, 2, 3), np.float32)
    desired = ((images - np.array(mean)) / np.array(std)).mean((1, 2))
    np.testing.assert_allclose(network.apply({}, images), desired, 1e-4, 1e-5)
    np.testing.assert_allclose(network.train({}, images)[0], desired, 1e-4, 1e-5)


@pytest.mark.parametrize(
    ('spec', 'said'),
    [
        ('normalize', "'normalize' stands last; write one network, and before it"),
        (f'{SIMCLR} | {SIMCLR}', 'stands before another'),
        (f'{SIMCLR} | normalize', 'stands before another'),
        (f'normalize("places") | {SIMCLR}', 'write one of imagenet, clip, inception'),
        (f'normalize(mean=(1, 1)) | {SIMCLR}', 'one number of each for each channel'),
        (f'normalize(mean=(1,), std=(0,)) | {SIMCLR}', 'above 0'),
        (f'normalize(encoder=3) | {SIMCLR}', 'encoder=3: leave it out'),
    ],
)
def test_wrong_chains_are_refused(spec, said):
    assert said in told(lambda: encoders.make(spec))


def test_images_of_other_channels_or_types_are_refused():
    network = normalize(encoder=PIXELS)
    gray, whole = np.ones((1, 9, 9, 1), np.float32), np.ones((1, 9, 9, 3), np.uint8)
    assert '3 channels, the images have 1' in told(lambda: network.apply({}, gray))
    assert 'uint8' in told(lambda: network.train({}, whole))
