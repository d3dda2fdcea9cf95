"""Weights of PyTorch, read here, against PyTorch: `python -m benchmarks.torch_parity`.

Networks of torchvision and timm get random weights, and BatchNorm random statistics. Their state is
saved under the names of public files, read by `ssl_extract.encoders.torch_weights`, and both answer
the same images. Prints the largest difference relative to the largest answer; above 1e-4 it fails.
Files that must be refused are tried as well: cut off, or with code inside. No real file is needed.

    python -m benchmarks.torch_parity --fixtures=tests/golden/torch

writes the small networks of the tests instead, with PyTorch's answers.
"""

import argparse
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import commands
from ssl_extract.encoders import torch_files, torch_weights
from ssl_extract.encoders.normalize import PRESETS
from ssl_extract.errors import UserError

try:
    import safetensors.torch
    import timm
    import torch
    import torchvision
    from torch import nn
    from torchvision.models import resnet
except ModuleNotFoundError as error:
    install = "pip install 'ssl_extract[benchmark]'"
    raise SystemExit(f'{error.name} is not installed: {install}') from None

TOLERANCE = 1e-4  # of the answers, relative to the largest
IMAGES = 3
SMALL = 'stages=(1, 1), width=2'
Arrays = dict[str, torch.Tensor]

_FIXTURES = flags.DEFINE_string('fixtures', None, 'Folder to write the fixtures of the tests to.')


@dataclasses.dataclass(frozen=True)
class Case:
    """A network of PyTorch, and the same network here.

    Attributes:
        name: of the case, and of its fixture.
        make: makes the network of PyTorch; its outputs are representations.
        spec: of the encoder.
        size: side of the images.
        content: turns the state of two networks, the second of other weights, into what a public
            file holds.
        suffix: of the file.
        head: the spec of the projection head behind the encoder; '' where there is none.
        make_head: makes the head of PyTorch, which a file has under `fc.`.
    """

    name: str
    make: Callable[[], nn.Module]
    spec: str
    size: int
    content: Callable[[Arrays, Arrays], dict[str, Any]] = lambda state, other: state
    suffix: str = '.safetensors'
    head: str = ''
    make_head: Callable[[], nn.Module] = nn.Identity


def without_classifier(network: nn.Module, stem: str = 'imagenet') -> nn.Module:
    """Returns a ResNet of torchvision that answers with representations, with the given stem."""
    network.fc = nn.Identity()
    if stem == 'cifar':
        network.conv1 = nn.Conv2d(3, network.conv1.out_channels, 3, 1, 1, bias=False)
        network.maxpool = nn.Identity()
    return network


def small_resnet(block: type[nn.Module], stem: str) -> nn.Module:
    """Makes a ResNet of torchvision with two stages of one block and two channels."""
    network = resnet.ResNet(block, [1, 1, 1, 1])
    network.inplanes = 2
    network.conv1, network.bn1 = nn.Conv2d(3, 2, 7, 2, 3, bias=False), nn.BatchNorm2d(2)
    network.layer1 = network._make_layer(block, 2, 1)
    network.layer2 = network._make_layer(block, 4, 1, stride=2)
    network.layer3 = network.layer4 = nn.Identity()
    return without_classifier(network, stem)


def small_vit() -> nn.Module:
    """Makes a vision transformer of timm with two blocks, for images of 8 pixels."""
    return timm.models.VisionTransformer(
        img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=0
    )


def simclr_head() -> nn.Module:
    """Makes the projection head of SimCLR, 4-3-2."""
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def simsiam_head() -> nn.Module:
    """Makes the projector of SimSiam, 16-16-16-5; a frozen bias is before the last BatchNorm."""
    layers = [nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU()]
    layers += [nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(16, 5), nn.BatchNorm1d(5, affine=False))


def simclr(state: Arrays, other: Arrays) -> dict[str, Any]:
    """Names the arrays as the paper's reference code: `backbone.`, `shortcut`."""
    renamed = {name.replace('downsample', 'shortcut'): array for name, array in state.items()}
    return {'state_dict': prefixed('backbone.', renamed), 'epoch': 200}


def simsiam(state: Arrays, other: Arrays) -> dict[str, Any]:
    """Names the arrays as SimSiam: `module.encoder.`, and a predictor beside it."""
    predictor = {'module.predictor.0.weight': torch.ones(2, 2)}
    return {'state_dict': prefixed('module.encoder.', state) | predictor}


def moco(state: Arrays, other: Arrays) -> dict[str, Any]:
    """Names the arrays as MoCo: encoders of queries and keys, and the queue."""
    both = prefixed('module.encoder_k.', other) | prefixed('module.encoder_q.', state)
    return {'state_dict': both | {'module.queue': torch.ones(2, 3)}, 'arch': 'resnet50'}


def byol(state: Arrays, other: Arrays) -> dict[str, Any]:
    """Names the arrays as BYOL's implementation whose encoder is a torch.nn.Sequential."""
    numbers = {'conv1': 0, 'bn1': 1} | {f'layer{i}': i + 3 for i in range(1, 5)}

    def numbered(arrays: Arrays) -> Arrays:
        parts = {name: name.partition('.') for name in arrays}
        return {f'{numbers[first]}.{rest}': arrays[n] for n, (first, _, rest) in parts.items()}

    return {
        'target_network_state_dict': prefixed('encoder.', numbered(other)),
        'online_network_state_dict': prefixed('encoder.', numbered(state)),
    }


def dino(state: Arrays, other: Arrays) -> dict[str, Any]:
    """Names the arrays as DINO: a student in `module.`, its teacher, the arguments."""
    head = {'head.last_layer.weight_v': torch.ones(2, 2)}
    return {
        'student': prefixed('module.backbone.', other) | prefixed('module.', head),
        'teacher': prefixed('backbone.', state) | head,
        'args': argparse.Namespace(arch='vit_small'),
    }


def with_head(state: Arrays, other: Arrays) -> dict[str, Any]:
    """Adds a classifier, as in the files of timm."""
    return state | {'head.weight': torch.ones(5, 2), 'head.bias': torch.ones(5)}


def prefixed(prefix: str, arrays: Arrays) -> Arrays:
    """Returns the arrays with a prefix before each name."""
    return {prefix + name: array for name, array in arrays.items()}


def resnets() -> Iterator[Case]:
    """Yields ResNet-18/34/50 with both stems, under the names of five projects."""
    files = (simclr, simsiam, moco, byol, lambda state, other: state)
    for number, depth in enumerate((18, 34, 50)):
        for stem, size in (('imagenet', 97), ('cifar', 33)):
            yield Case(
                f'resnet{depth}_{stem}',
                lambda depth=depth, stem=stem: without_classifier(
                    getattr(torchvision.models, f'resnet{depth}')(), stem
                ),
                f'normalize | resnet{depth}(stem="{stem}")',
                size,
                files[(2 * number + (stem == 'cifar')) % len(files)],
                '.pth.tar' if stem == 'imagenet' else '.safetensors',
            )


def vits() -> Iterator[Case]:
    """Yields ViT-Ti/16 and ViT-S/16, as timm's and as DINO's."""
    for name, model, content in (('vit_ti', 'tiny', with_head), ('vit_s', 'small', dino)):
        yield Case(
            name,
            lambda model=model: timm.create_model(f'vit_{model}_patch16_224', num_classes=0),
            f'normalize("inception") | {name}',
            224,
            content,
            '.pth',
        )


FIXTURES = (
    Case(
        'simclr',
        lambda: small_resnet(resnet.BasicBlock, 'cifar'),
        f'resnet18(stem="cifar", {SMALL})',
        9,
        simclr,
        head='simclr(hidden=3, dim=2)',
        make_head=simclr_head,
    ),
    Case(
        'simsiam',
        lambda: small_resnet(resnet.Bottleneck, 'imagenet'),
        f'normalize | resnet50({SMALL})',
        33,
        simsiam,
        head='simsiam_projector(hidden=16, dim=5)',
        make_head=simsiam_head,
    ),
    Case(
        'moco',
        lambda: small_resnet(resnet.BasicBlock, 'imagenet'),
        f'normalize | resnet34({SMALL})',
        32,
        moco,
    ),
    Case(
        'byol',
        lambda: small_resnet(resnet.Bottleneck, 'imagenet'),
        f'resnet50({SMALL})',
        17,
        byol,
    ),
    Case(
        'dino',
        small_vit,
        'normalize | vit(depth=2, width=12, heads=3, patch=4)',
        8,
        dino,
    ),
    Case(
        'timm',
        small_vit,
        'normalize("inception") | vit(depth=2, width=12, heads=3, patch=4)',
        8,
        with_head,
    ),
)


def randomize(network: nn.Module, seed: int) -> Arrays:
    """Gives a network random parameters and statistics, and returns its state."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for name, array in state.items():
        if name.endswith('running_var'):
            array.uniform_(0.5, 2.0, generator=generator)
        elif array.ndim <= 1 and name.endswith('weight'):
            array.uniform_(0.5, 1.5, generator=generator)
        elif array.is_floating_point():
            fan_in = array[0].numel() if array.ndim > 1 and 'embed' not in name else 4
            array.normal_(0.0, fan_in**-0.5, generator=generator)
    network.load_state_dict(state)
    return state


def write(case: Case, folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """Writes the file of a case.

    Args:
        case: the case.
        folder: of the file.

    Returns:
        The file, and by name 'images' uint8 [N, H, W, 3], PyTorch's 'answers' float32 [N, D], and
        the 'projections' float32 [N, E] where there is a head.
    """
    network, other, head = case.make().eval(), case.make(), case.make_head().eval()
    state = randomize(network, 1) | prefixed('fc.', randomize(head, 3))
    content = case.content(state, randomize(other, 2))
    path = folder / f'{case.name}{case.suffix}'
    if case.suffix == '.safetensors':
        leaves = dict(torch_files.flat(content))
        arrays = {name: x.clone() for name, x in leaves.items() if torch.is_tensor(x)}
        safetensors.torch.save_file(arrays, path)
    else:
        torch.save(content, path)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, case.size, case.size, 3), np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    if 'normalize' in case.spec:
        preset = 'inception' if 'inception' in case.spec else 'imagenet'
        mean, std = (torch.tensor(values)[:, None, None] for values in PRESETS[preset])
        x = (x - mean) / std
    with torch.no_grad():
        answers = network(x)
        projections = {'projections': head(answers).numpy()} if case.head else {}
    return path, {'images': images, 'answers': answers.numpy(), **projections}


def difference(case: Case, folder: pathlib.Path) -> float:
    """Returns the largest difference of the answers, relative to the largest answer."""
    path, arrays = write(case, folder)
    encoder = torch_weights.load(path, case.spec, case.size, head=case.head).encoder
    images = arrays['images'].astype(np.float32) / 255
    ours = {'answers': encoder.apply(images)}
    if case.head:
        apply, variables = encoder.through_heads()
        ours['projections'] = apply(variables, images)
    return max(
        float(np.abs(own - arrays[name]).max() / np.abs(arrays[name]).max())
        for name, own in ours.items()
    )


class Code:
    """An object whose pickle runs a command when it is read."""

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        """Returns the call that a pickle makes."""
        return os.mkdir, ('made_by_a_pickle',)


def refusals(folder: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields the errors of files that must be refused: (what is wrong, the line).

    Raises:
        AssertionError: a file was read, or ran its code.
    """
    whole, _ = write(dataclasses.replace(FIXTURES[0], suffix='.pth'), folder)
    content = whole.read_bytes()
    old = folder / 'old.pth'
    torch.save({'a': torch.ones(99)}, old, _use_new_zipfile_serialization=False)
    torch.save({'state_dict': Code()}, folder / 'code.pth')
    (folder / 'cut.pth').write_bytes(content[: len(content) // 2])
    (folder / 'old_cut.pth').write_bytes(old.read_bytes()[:-40])
    (folder / 'empty.pth').write_bytes(b'')
    (folder / 'text.pth').write_text('no pickle')
    for name in ('code', 'cut', 'old_cut', 'empty', 'text', 'none'):
        try:
            torch_weights.load(folder / f'{name}.pth', FIXTURES[0].spec, FIXTURES[0].size)
        except UserError as error:
            assert '\n' not in str(error) and not pathlib.Path('made_by_a_pickle').exists()
            yield name, str(error)
        else:
            raise AssertionError(f'{name}.pth was read')


def main(argv: list[str]) -> None:
    """Prints the differences and the refusals, or writes the fixtures."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1]!r}')
    if _FIXTURES.value:
        folder = pathlib.Path(_FIXTURES.value)
        folder.mkdir(parents=True, exist_ok=True)
        for case in FIXTURES:
            _, arrays = write(case, folder)
            np.savez(folder / f'{case.name}.npz', **arrays, spec=case.spec, head=case.head)
        return
    versions = {module.__name__: module.__version__ for module in (torch, torchvision, timm)}
    print(', '.join(f'{name} {version}' for name, version in versions.items()))
    with tempfile.TemporaryDirectory() as name:
        apart = {}
        for case in (*resnets(), *vits(), *FIXTURES):
            apart[case.name] = difference(case, pathlib.Path(name))
            print(f'{case.name:20s}{case.suffix:14s}{apart[case.name]:.1e}', flush=True)
        for wrong, line in refusals(pathlib.Path(name)):
            print(f'{wrong:20s}{line}')
    above = [name for name, value in apart.items() if not value <= TOLERANCE]
    if above:
        raise SystemExit(f'above {TOLERANCE}: {", ".join(above)}')


if __name__ == '__main__':
    commands.start(main)
