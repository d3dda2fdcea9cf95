"""Exported encoders: other programs read them, and wrong files are told in one line."""

import itertools
import json
import pathlib
import re
import subprocess
import sys

import flax.linen as nn
import jax
import jax.export
import numpy as np
import pytest
import untrained

import ssl_extract
from ssl_extract import cli, encoders
from ssl_extract.encoders import onednn, trained
from ssl_extract.encoders.base import from_module
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.victims import stored

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'how_to' / 'export.md'
BLOCK = re.compile(r'^```(\w+)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
ENCODER = untrained.victim('resnet18(stem="patch", width=4, stages=(1,))').encoder
IMAGES = np.random.default_rng(3).random((4, *untrained.SHAPE), np.float32)


def blocks(language):
    return [code for name, code in BLOCK.findall(PAGE.read_text()) if name == language]


def command(*words):
    return cli.main(['ssl-extract', 'export', *map(str, words)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained.save('my_encoder', ENCODER)
    return tmp_path / 'my_encoder'


def of_spec(spec, shape):
    """An encoder with statistics and biases that are not their defaults."""
    network = encoders.make(spec)
    variables = network.init(jax.random.key(1), jax.ShapeDtypeStruct((1, *shape), np.float32))
    random = np.random.default_rng(0)
    moved = jax.tree.map(lambda x: x + 0.1 * random.random(x.shape, np.float32), variables)
    return Encoder(spec, moved, shape)


def test_the_commands_of_the_page_write_what_load_reads(folder, capsys):
    words = [line.split()[2:] for code in blocks('bash') for line in code.splitlines()]
    assert [w[1] for w in words] == ['--format=safetensors', '--format=stablehlo', '--format=onnx']
    assert command(*words[0]) == command(*words[1]) == 0
    told = capsys.readouterr().out
    assert 'float32 [batch, 8, 8, 3] in [0, 1]' in told and 'exported: programs/victim' in told
    again = ssl_extract.load('my_encoder.safetensors')
    jax.tree.map(np.testing.assert_array_equal, again.variables, ENCODER.variables)
    assert again.heads == ENCODER.heads and again.input_shape == ENCODER.input_shape
    victim = ssl_extract.load('programs/victim.stablehlo')
    assert (victim.address, victim.dim) == (trained.content_hash(ENCODER), ENCODER.dim)
    assert sorted(path.name for path in folder.parent.glob('programs/*')) == ['victim.stablehlo']


def test_an_exported_victim_is_asked_at_the_same_bill(folder):
    ssl_extract.export(folder, 'mine.stablehlo')
    oracle = ssl_extract.make_oracle(ssl_extract.load('mine.stablehlo'), budget=3)
    answers = ssl_extract.collect(oracle, IMAGES[:3])
    assert answers.bill.billed == 3
    np.testing.assert_allclose(answers.representations, ENCODER.apply(IMAGES[:3]), atol=1e-6)


@pytest.mark.parametrize('suffix', ['stablehlo', 'safetensors'])
def test_a_normalization_goes_along(folder, suffix):
    spec = f'normalize | {ENCODER.spec}'
    ssl_extract.export(of_spec(spec, ENCODER.input_shape), f'mine.{suffix}')
    loaded = ssl_extract.load(f'mine.{suffix}')
    represent = loaded.answer if suffix == 'stablehlo' else loaded.apply
    mean, std = np.float32(((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    plain = of_spec(ENCODER.spec, ENCODER.input_shape)
    expected = plain.apply((IMAGES[:2] - mean) / std)
    np.testing.assert_allclose(represent(IMAGES[:2]), expected, rtol=1e-4, atol=1e-5)


def test_a_program_is_for_any_batch_and_platform_and_has_no_call_of_this_library(
    folder, monkeypatch
):
    monkeypatch.setattr(jax, 'device_count', lambda: 1)  # else oneDNN is never taken
    assert onednn.is_here() == onednn.is_known()
    own = jax.jit(encoders.make(ENCODER.spec).apply).lower(ENCODER.variables, IMAGES)
    assert ('onednn' in own.as_text()) == onednn.is_known()
    ssl_extract.export(ENCODER, 'mine.stablehlo')
    program = pathlib.Path('mine.stablehlo').read_bytes().rpartition(b'\n')[0]
    exported = jax.export.deserialize(bytearray(program))
    assert exported.platforms == ('cpu', 'cuda', 'tpu')
    assert str(exported.in_avals[0].shape) == '(batch, 8, 8, 3)'
    text = exported.mlir_module()
    assert 'onednn' not in text and 'convolution' in text and 'HIGHEST' in text


@pytest.mark.wide
def test_the_page_reads_the_files_in_a_process_without_this_package(folder):
    namespace = {}
    for code in blocks('python')[:1]:
        exec(code, namespace)
    others = [*blocks('python')[2:], "import sys\nassert 'ssl_extract' not in sys.modules\n"]
    done = subprocess.run([sys.executable, '-c', ''.join(others)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_wrong_folders_and_flags_are_told_in_one_line(folder, capsys):
    pathlib.Path('empty').mkdir()
    pathlib.Path('there.safetensors').write_text('mine')
    wrong = {
        (): 'export: write one folder, as in export FOLDER --format=safetensors',
        (folder,): 'export: write one folder, as in export FOLDER --format=safetensors',
        ('empty', '--format=onnx'): 'no encoder in .*empty: give a folder that holds meta.json',
        ('absent', '--format=onnx'): 'no encoder in .*absent: give a folder that holds meta.json',
        (folder, '--format=tflite'): r'--format=tflite: .*safetensors\|stablehlo\|onnx',
        (folder, '--format=onnx', '--out=a.bin'): '--out=a.bin: write a name that ends in .onnx',
        (folder, '--format=safetensors', '--out=there.safetensors'): 'there.safetensors exists: re',
        (folder, '--format=safetensors', '--modules=absent'): 'there is no module .absent.',
    }
    for words, message in wrong.items():
        assert command(*words) == 2
        told = capsys.readouterr().err
        assert re.fullmatch(rf'error: .*{message}.*\n', told), (words, told)
    assert pathlib.Path('there.safetensors').read_text() == 'mine'
    (folder / 'variables' / '_METADATA').write_text('{}')
    with pytest.raises(UserError, match='cannot be read .*: put it back from a copy, or train or'):
        ssl_extract.export(folder, 'other.safetensors')
    assert not pathlib.Path('other.safetensors').exists()


def test_a_missing_converter_is_told_with_what_to_install(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'jax2onnx', None)
    assert command(folder, '--format=onnx') == 2
    assert "pip install 'ssl_extract[onnx]'" in capsys.readouterr().err


@pytest.mark.parametrize('suffix', ['stablehlo', 'safetensors'])
def test_damaged_files_and_files_of_another_version_are_refused(folder, suffix):
    path = pathlib.Path(f'mine.{suffix}')
    ssl_extract.export(ENCODER, path)
    whole = path.read_bytes()
    flipped = [bytearray(whole) for _ in range(3)]
    for content, place in zip(flipped, (9, len(whole) // 2, len(whole) - 50), strict=True):
        content[place] ^= 1
    for content in (b'', whole[:99], whole[: len(whole) // 2], whole[:-1], *flipped):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f'cannot read .*mine.{suffix} .*: put it back') as told:
            ssl_extract.load(path)
        assert '\n' not in str(told.value)
    path.unlink()
    pathlib.Path('mine.onnx').write_bytes(whole)
    with pytest.raises(UserError, match='cannot read .*mine.onnx'):
        ssl_extract.load('mine.onnx')
    with pytest.raises(UserError, match=f'mine.{suffix} is not there'):
        ssl_extract.load(path)
    with pytest.raises(UserError, match='mine.npz: write a name that ends in .safetensors, .stab'):
        ssl_extract.load('mine.npz')


def test_files_of_a_later_version_are_told_with_who_wrote_them(folder):
    ssl_extract.export(ENCODER, 'mine.stablehlo')
    program, _, about = pathlib.Path('mine.stablehlo').read_bytes().rpartition(b'\n')
    later = json.loads(about) | {'ssl_extract': '9.1', 'file_version': 2}
    pathlib.Path('mine.stablehlo').write_bytes(program + b'\n' + json.dumps(later).encode())
    stored.write('mine.safetensors', stored.Stored(ENCODER, {}, later | {'dtype': 'float32'}))
    for name in ('mine.stablehlo', 'mine.safetensors'):
        with pytest.raises(UserError, match='file version 2, written by ssl_extract 9.1, and this'):
            ssl_extract.load(name)


class Counted(nn.Module):
    """A network that needs the number of its inputs, which a program of any batch has not."""

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(2)(images.reshape(int(images.shape[0]), -1))


def test_what_cannot_be_exported_leaves_no_file(folder, registries_restored):
    encoders.register('counted')(lambda: from_module(Counted(), rank=4))
    made = itertools.count()

    @encoders.register('fickle')
    def fickle():
        shift = next(made)
        return ENCODER.network._replace(apply=lambda v, x: x[:, 0, 0] + shift)

    for spec, message in {
        'counted': 'cannot convert .counted. .*: write another format',
        'fickle': 'the file moves a representation by .* of its size, and 1e-05 is the most',
    }.items():
        encoder = of_spec(spec, untrained.SHAPE)
        with pytest.raises(UserError, match=message) as told:
            ssl_extract.export(encoder, 'mine.stablehlo')
        assert '\n' not in str(told.value) and len(str(told.value)) < 400
    diverged = ENCODER._replace(variables=jax.tree.map(lambda x: x * np.nan, ENCODER.variables))
    with pytest.raises(UserError, match='the file moves a representation by nan of its size'):
        ssl_extract.export(diverged, 'mine.safetensors')
    assert [path.name for path in folder.parent.iterdir()] == ['my_encoder']
    projection = ssl_extract.victims.from_function(np.abs, dim=3, address='mine')
    with pytest.raises(UserError, match='export: mine is no encoder: give one, its folder or a'):
        ssl_extract.export(projection, 'mine.stablehlo')


NETWORKS = (
    ('resnet18(stem="imagenet", width=8)', (64, 64, 3)),
    ('resnet50(stem="imagenet", width=4, stages=(1, 1, 1))', (32, 32, 3)),
    ('vit(depth=2, width=24, heads=3, patch=4)', (16, 16, 3)),
)


def test_an_encoder_of_tokens_is_tried_with_tokens(folder):
    encoder = of_spec('bag_of_tokens(vocabulary=50, width=8)', (16,))
    about = ssl_extract.export(encoder, 'tokens.stablehlo')
    assert about['difference'] < 1e-5 and 'tokens as whole numbers' in about['inputs']
    tokens = np.array([[3.0, 49.0] + 14 * [-1.0]], np.float32)
    answer = ssl_extract.load('tokens.stablehlo').answer(tokens)
    np.testing.assert_allclose(answer, encoder.apply(tokens), atol=1e-6)


@pytest.mark.wide
@pytest.mark.parametrize('suffix', ['stablehlo', 'onnx'])
@pytest.mark.parametrize(('spec', 'shape'), NETWORKS)
def test_programs_give_the_representations_of_any_network(spec, shape, suffix, folder):
    encoder = of_spec(spec, shape)
    about = ssl_extract.export(encoder, f'mine.{suffix}')
    assert about['difference'] < 1e-5
    images = np.random.default_rng(5).random((70, *shape), np.float32)
    answer = ssl_extract.load(f'mine.{suffix}').answer
    for size in (1, 3, 64, 70):
        expected = np.asarray(encoder.apply(images[:size]))
        scale = np.abs(expected).max()
        np.testing.assert_allclose(answer(images[:size]), expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.wide
def test_onnxruntime_runs_what_the_page_says(folder):
    for code in (*blocks('python')[:1], *blocks('py')):
        exec(code, {})
        if not pathlib.Path('my_encoder.onnx').exists():
            assert command('my_encoder', '--format=onnx') == 0
    content = bytearray(pathlib.Path('my_encoder.onnx').read_bytes())
    content[len(content) // 2] ^= 1
    pathlib.Path('my_encoder.onnx').write_bytes(content)
    with pytest.raises(UserError, match='cannot read .*my_encoder.onnx'):
        ssl_extract.load('my_encoder.onnx')
    half = of_spec('resnet18(stem="patch", width=4, stages=(1,), dtype="bfloat16")', (8, 8, 3))
    with pytest.raises(UserError, match='onnxruntime .* cannot run it .*: write another format'):
        ssl_extract.export(half, 'half.onnx')
