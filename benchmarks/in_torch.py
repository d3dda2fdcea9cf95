"""The PyTorch side of `benchmarks.against_torch`: plain eager code, channels-last."""

import collections
import functools
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn, profiler
from torch.nn import functional

from benchmarks import comparison
from benchmarks.comparison import STRIDES, Setup, Work

PROBE_BATCH = 256  # of the reference code's linear evaluation
NUM_CLASSES = 10
torch.set_num_threads(comparison.cores())  # as many as XLA takes


class Block(nn.Module):
    """A basic residual block; its layers are named as in `ssl_extract.encoders.resnet`."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.BatchNorm_0 = nn.BatchNorm2d(out)
        self.Conv_1 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.BatchNorm_1 = nn.BatchNorm2d(out)
        self.changes = stride != 1 or channels != out
        if self.changes:
            self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W] to [B, out, H / stride, W / stride]."""
        y = functional.relu(self.BatchNorm_0(self.Conv_0(x)), inplace=True)
        y = self.BatchNorm_1(self.Conv_1(y))
        x = self.shortcut_norm(self.shortcut(x)) if self.changes else x
        return functional.relu(x + y, inplace=True)


class ResNet(nn.Module):
    """The network of a `Setup`: [B, 3, side, side] to representations [B, D]."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        channels = setup.width
        self.stem = nn.Conv2d(3, channels, 3, STRIDES[setup.stem], 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.blocks = []
        for i, count in enumerate(setup.stages):
            for j in range(count):
                out = setup.width * 2**i
                self.blocks.append(f'stage{i}_block{j}')
                self.add_module(self.blocks[-1], Block(channels, out, 2 if i and not j else 1))
                channels = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the representations."""
        x = functional.relu(self.stem_norm(self.stem(x)), inplace=True)
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def rate(setup: Setup, name: str, seconds: float) -> float:
    """Images per second of one of `WORKS`."""
    return comparison.images_per_second(_work(setup, name), seconds)


def outputs(
    setup: Setup, arrays: dict[str, np.ndarray], images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Computes what `ssl_extract`'s parameters give here, float32 [B, D].

    Args:
        setup: of the network.
        arrays: of `in_jax.named_arrays`.
        images: uint8 [B, H, W, 3].

    Returns:
        With frozen statistics, and with those of the batch.
    """
    network = _network(setup)
    given = {name: torch.from_numpy(array) for name, array in arrays.items()}
    network.load_state_dict(network.state_dict() | given)
    x = _decoded(torch.from_numpy(images))
    with torch.no_grad():
        return network.eval()(x).numpy(), network.train()(x).numpy()


def operations(setup: Setup, steps: int) -> dict[str, float]:
    """Milliseconds of a bare step, by kind of operation, and of the whole step.

    PyTorch computes both gradients of a convolution in one operation.
    """
    work = _work(setup, 'bare')
    work.wait(work.run())
    with profiler.profile(activities=[profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(steps):
            work.wait(work.run())
    spent: dict[str, float] = collections.Counter()
    for event in profile.key_averages():
        spent[_kind(event.key)] += event.self_cpu_time_total / 1e3 / steps
    rate = comparison.images_per_second(work, sum(spent.values()) * steps / 1e3)
    return dict(spent) | {'step': 1e3 * setup.batch_size / rate}


def _kind(name: str) -> str:
    """Returns the kind of an operation, see `benchmarks.step_operations`."""
    if 'convolution' in name.lower():
        backward = 'backward' in name.lower()
        return f'convolution, {"both gradients" if backward else "forward"}'
    if any(word in name for word in ('lerp', 'addcmul', 'addcdiv', 'sqrt', 'foreach', 'Optimizer')):
        return 'optimizer'
    norms = ('batch_norm', 'relu', 'threshold', 'clamp_min')
    is_norm = name == 'aten::add' or any(word in name for word in norms)
    return 'BatchNorm, ReLU, shortcuts' if is_norm else 'other'


def versions() -> dict[str, str]:
    """Returns the version of PyTorch and its number of threads."""
    return {'torch': torch.__version__, 'torch_threads': str(torch.get_num_threads())}


@functools.cache
def _work(setup: Setup, name: str) -> Work:
    return WORKS[name](setup)


def _network(setup: Setup) -> ResNet:
    return ResNet(setup).to(memory_format=torch.channels_last)


def _decoded(stored: torch.Tensor) -> torch.Tensor:
    """Maps uint8 [B, H, W, 3] to float32 [B, 3, H, W] in [0, 1], channels-last."""
    return stored.permute(0, 3, 1, 2).float().div_(255)


def _training(
    parameters: Iterable[nn.Parameter], loss: Callable[[], torch.Tensor], images: int, **adam: float
) -> Work:
    """Makes the work of a training step by Adam."""
    optimizer = torch.optim.Adam(parameters, **adam)

    def run() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    return Work(run, torch.Tensor.item, images)


def _bare(setup: Setup) -> Work:
    """Imitates stored answers by MSE."""
    network, stored = _network(setup), torch.from_numpy(setup.images(setup.batch_size))
    answers = torch.rand(setup.batch_size, setup.dim)

    def loss() -> torch.Tensor:
        return functional.mse_loss(network(_decoded(stored)), answers)

    return _training(network.parameters(), loss, setup.batch_size, lr=1e-3)


def _live(setup: Setup) -> Work:
    """Imitates a frozen victim of the same kind, which answers each batch first."""
    network, victim = _network(setup), _network(setup).eval()
    stored = torch.from_numpy(setup.images(setup.batch_size))

    def loss() -> torch.Tensor:
        images = _decoded(stored)
        with torch.no_grad():
            answers = victim(images)
        return functional.mse_loss(network(images), answers)

    return _training(network.parameters(), loss, setup.batch_size, lr=1e-3)


def _simclr(setup: Setup) -> Work:
    """Trains by NT-Xent on two views of each image, which are given: nothing is augmented."""
    head = nn.Sequential(nn.Linear(setup.dim, 512), nn.ReLU(), nn.Linear(512, 128))
    network, count = _network(setup), 2 * setup.batch_size
    stored = torch.from_numpy(setup.images(count))
    pairs = (torch.arange(count) + setup.batch_size) % count
    itself = torch.eye(count, dtype=torch.bool)

    def loss() -> torch.Tensor:
        rows = functional.normalize(head(network(_decoded(stored))))
        logits = (rows @ rows.T / 0.07).masked_fill(itself, -torch.inf)
        return functional.cross_entropy(logits, pairs)

    return _training([*network.parameters(), *head.parameters()], loss, count, lr=1e-3)


def _inference(setup: Setup) -> Work:
    """Computes representations with frozen statistics."""
    network = _network(setup).eval()
    stored = torch.from_numpy(setup.images(setup.batch_size))

    def run() -> torch.Tensor:
        with torch.no_grad():
            return network(_decoded(stored))

    return Work(run, torch.Tensor.sum, setup.batch_size)


def _probe(setup: Setup) -> Work:
    """Trains a linear layer through the frozen encoder, as the reference code's evaluation does.

    The encoder stays in training mode there: BatchNorm has the statistics of the batch.
    """
    network, layer = _network(setup).requires_grad_(False), nn.Linear(setup.dim, NUM_CLASSES)
    stored = torch.from_numpy(setup.images(PROBE_BATCH))
    labels = torch.randint(0, NUM_CLASSES, (PROBE_BATCH,))

    def loss() -> torch.Tensor:
        return functional.cross_entropy(layer(network(_decoded(stored))), labels)

    return _training(layer.parameters(), loss, PROBE_BATCH, lr=1e-4, weight_decay=8e-4)


WORKS = {
    'bare': _bare,
    'live': _live,
    'simclr': _simclr,
    'inference': _inference,
    'probe': _probe,
}
