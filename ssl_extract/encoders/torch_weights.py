"""Encoders from weights of PyTorch, by the names that public files use.

ResNets are those of torchvision, as in the files of SimSiam, SimCLR, MoCo, BYOL, SwAV and Barlow
Twins, and vision transformers those of timm and DINO. What stands before the names of an encoder
(`module.`, `backbone.`, `state_dict.module.encoder_q.`) is found, not listed.

>>> import numpy as np
>>> arrays = {'backbone.layer1.0.conv1.weight': np.zeros((8, 8, 3, 3))}
>>> parts_of(arrays, RESNET)
{'backbone.': {'layer1.0.conv1.weight': 'backbone.layer1.0.conv1.weight'}}
"""

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import numerics
from ssl_extract.encoders import base, torch_files, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.runtime import parallel

Arrays = dict[str, np.ndarray]

# Of several encoders in one file, its authors evaluate this one: DINO's teacher, BYOL's online
# network, the queries' encoder of MoCo and the base encoder of MoCo v3.
PREFERRED = ('teacher', 'online', 'encoder_q', 'base_encoder')
# What stands behind an encoder, under the same prefix; no representation depends on it.
HEADS = ('fc', 'head', 'heads', 'linear', 'projector', 'projection_head', 'predictor', 'prototypes')
_SHOWN = 3  # names in a message


class Layout(NamedTuple):
    """The names of a kind of networks in PyTorch.

    Attributes:
        title: the kind, in messages.
        anchor: a regular expression that matches one name of each encoder, from its start.
        names: (regular expression, replacement) that turn our names into names of PyTorch, in
            their order.
    """

    title: str
    anchor: str
    names: tuple[tuple[str, str], ...]


_LEAVES = ((r'\.(kernel|scale)$', '.weight'), (r'\.(mean|var)$', r'.running_\1'))
RESNET = Layout(
    'ResNet',
    # In a torch.nn.Sequential the stages are numbered: from 4, or from 3 without a max-pool.
    r'(layer1|[34])\.0\.conv1\.weight$',
    (
        (r'^stem\.', 'conv1.'),
        (r'^stem_norm\.', 'bn1.'),
        (r'^stage(\d+)_block', r'layer+\1.'),
        (r'\.shortcut\.', '.downsample.0.'),
        (r'\.shortcut_norm\.', '.downsample.1.'),
        (r'Conv_(\d+)', r'conv+\1'),
        (r'BatchNorm_(\d+)', r'bn+\1'),
        *_LEAVES,
    ),
)
VIT = Layout(
    'vision transformer',
    r'blocks\.0\.attn\.qkv\.weight$',
    (
        (r'^patches\.', 'patch_embed.proj.'),
        (r'^token$', 'cls_token'),
        (r'^position$', 'pos_embed'),
        (r'^block(\d+)\.', r'blocks.\1.'),
        (r'LayerNorm_(\d+)', r'norm+\1'),
        (r'Dense_(\d+)', r'mlp.fc+\1'),
        (r'MultiHeadDotProductAttention_0\.out\.', 'attn.proj.'),
        (r'MultiHeadDotProductAttention_0\.(query|key|value)\.', 'attn.qkv.'),
        *_LEAVES,
    ),
)


class Loaded(NamedTuple):
    """An encoder, and what of its file is no part of it.

    Attributes:
        encoder: the encoder.
        prefix: what stands before the names of its arrays, such as 'module.encoder_q.'.
        left_out: the names of the file's other arrays: heads, and other networks.
    """

    encoder: Encoder
    prefix: str
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        """Says which arrays were read and which were left out, as a note of a run."""
        size = base.num_params(self.encoder.variables)
        note = f"the victim is {self.encoder.spec}, {size:,} parameters, read from '{self.prefix}*'"
        return f'{note}; left out: {_shortened(self.left_out) or "nothing"}'


def load(
    path: epath.PathLike,
    spec: str,
    size: int,
    prefix: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Loaded:
    """Reads an encoder from a file of weights, onto a mesh (default: of all devices).

    Args:
        path: a file: `.safetensors`, or what `torch.save` wrote.
        spec: of the encoder, such as `'normalize | resnet50'`; its architecture is the file's.
        size: side of the images, in pixels.
        prefix: what stands before the names of the encoder's arrays; None finds it.
        mesh: the devices.

    Raises:
        UserError: the file cannot be read, or its arrays are not those of the encoder.
    """
    arrays, shape = torch_files.read(path), (size, size, 3)
    inputs = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    template = jax.eval_shape(trained.make(spec).init, jax.random.key(0), inputs)
    layout = _layout_of(spec, template)
    parts = parts_of(arrays, layout)
    prefix = _chosen(path, parts, prefix, layout, arrays)
    names = parts[prefix]
    values, problems = _filled(template, layout, {name: arrays[n] for name, n in names.items()})
    if problems:
        raise UserError(
            f'{path}: its arrays do not fit encoder {spec!r} with size={size}: '
            f'{"; ".join(problems)}; the file holds '
            f'{described({name: arrays[n] for name, n in names.items()})}'
        )
    if not numerics.is_finite(values):
        raise UserError(f'{path}: its arrays hold NaN, infinity or numbers above 1e19')
    encoder = Encoder(spec, parallel.replicate(values, mesh or parallel.data_mesh()), shape)
    heads = {full for name, full in names.items() if _is_of_head(name)}
    return Loaded(encoder, prefix, tuple(sorted(heads | arrays.keys() - names.values())))


def parts_of(arrays: Iterable[str], layout: Layout) -> dict[str, dict[str, str]]:
    """Finds the encoders in a file: prefix -> torchvision's or timm's name -> name in the file.

    Args:
        arrays: the names in the file.
        layout: of the encoders to find.
    """
    found: dict[str, set[str]] = {}
    for full in arrays:
        if match := re.match(rf'(|.*?\.){layout.anchor}', full):
            found.setdefault(match[1], set()).add(match[2] if match.lastindex > 1 else '')
    parts = {}
    for prefix, firsts in found.items():
        own = [full for full in arrays if full.startswith(prefix)]
        parts[prefix] = {_usual(full.removeprefix(prefix), min(firsts)): full for full in own}
    return parts


def described(arrays: Arrays) -> str:
    """Writes the spec of the encoder that some arrays are of, as far as they tell.

    >>> import numpy as np
    >>> described({'layer1.0.conv1.weight': np.zeros(1), 'conv1.weight': np.zeros((8, 3, 7, 7))})
    'resnet(block="basic", stages=(1,), stem="imagenet", width=8)'

    Args:
        arrays: of one encoder, by torchvision's or timm's names.
    """
    counts: dict[str, set[str]] = {}
    for name in arrays:
        if match := re.match(r'(layer\d+|blocks)\.(\d+)\.', name):
            counts.setdefault(match[1], set()).add(match[2])
    first = arrays.get('conv1.weight', arrays.get('patch_embed.proj.weight'))
    if first is None or first.ndim != 4:
        return 'another network'
    width, _, _, side = first.shape
    if 'blocks' in counts:
        tokens = arrays['pos_embed'].size // max(width, 1) if 'pos_embed' in arrays else 1
        size = side * math.isqrt(max(tokens - 1, 0))
        return f'vit(depth={len(counts["blocks"])}, width={width}, patch={side}) for size={size}'
    block = 'bottleneck' if 'layer1.0.conv3.weight' in arrays else 'basic'
    stages = tuple(len(counts[stage]) for stage in sorted(counts))
    stem = 'imagenet' if side == 7 else 'cifar'
    return f'resnet(block="{block}", stages={stages}, stem="{stem}", width={width})'


def _layout_of(spec: str, template: Any) -> Layout:
    params = template['params']
    if {'stem', 'stem_norm', 'stage0_block0'} <= params.keys():
        return RESNET
    if {'patches', 'token', 'position', 'block0'} <= params.keys():
        return VIT
    raise UserError(
        f'encoder {spec!r} has no counterpart in files of PyTorch: write resnet18, resnet34, '
        'resnet50, resnet, vit_ti, vit_s or vit, with their arguments'
    )


def _usual(name: str, first: str) -> str:
    """Returns torchvision's or timm's name of an array that other code names otherwise.

    Args:
        name: without the prefix.
        first: the name of the first stage: 'layer1', or a number in a torch.nn.Sequential.
    """
    if first.isdecimal():
        head, _, rest = name.partition('.')
        if head.isdecimal():
            stems = {0: 'conv1', 1: 'bn1'}
            name = f'{stems.get(int(head), f"layer{int(head) - int(first) + 1}")}.{rest}'
    return name.replace('.shortcut.', '.downsample.')


def _chosen(
    path: epath.PathLike, parts: dict[str, Any], prefix: str | None, layout: Layout, arrays: Arrays
) -> str:
    """Returns the prefix of the encoder to read."""
    if not parts:
        raise UserError(
            f'{path}: it holds no {layout.title} with the names of public files; it holds '
            f'{_shortened(arrays)}'
        )
    if prefix is None:
        preferred = [p for p in parts if any(word in p for word in PREFERRED)]
        choice = list(parts) if len(parts) == 1 else preferred
        if len(choice) == 1:
            return choice[0]
    elif prefix in parts:
        return prefix
    shown = ', '.join(map(repr, parts))
    raise UserError(f'{path}: prefix={prefix!r}: it holds encoders under {shown}; write one')


def _filled(template: Any, layout: Layout, arrays: Arrays) -> tuple[Any, list[str]]:
    """Returns the template with the values of the arrays, and what does not fit."""
    paths, structure = jax.tree.flatten_with_path(template)
    values, missing, wrong, used = [], [], [], set()
    for keys, leaf in paths:
        ours = '.'.join(key.key for key in keys[1:])
        name = _name_of(ours, layout)
        used.add(name)
        if name not in arrays:
            missing.append(name)
            continue
        value = _converted(arrays[name], ours, leaf.shape)
        values.append(value)
        if value.shape != leaf.shape:
            wrong.append(f'{name} {list(value.shape)} for {list(leaf.shape)}')
    more = [name for name in arrays if name not in used and not _is_of_head(name)]
    problems = {
        'it lacks': missing,
        'of another shape are': wrong,
        'without a place are': more,
    }
    for names in problems.values():
        names.sort(key=lambda name: 'running' in name)
    listed = [f'{what} {_shortened(names)}' for what, names in problems.items() if names]
    return None if listed else jax.tree.unflatten(structure, values), listed


def _name_of(ours: str, layout: Layout) -> str:
    """Returns the name in PyTorch of one of our arrays, such as 'stage0_block1.Conv_0.kernel'."""
    for pattern, replacement in layout.names:
        ours = re.sub(pattern, replacement, ours)
    return re.sub(r'\+(\d+)', lambda number: str(int(number[1]) + 1), ours)  # PyTorch counts from 1


def _converted(array: np.ndarray, ours: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an array in our layout; its shape is `shape` where it fits.

    Args:
        array: in the layout of PyTorch: [out, in, height, width] of a kernel, [out, in] of a
            matrix, query, key and value in one.
        ours: our name of the array.
        shape: of our array.
    """
    parts = re.findall(r'\.(query|key|value)\.', ours)
    if parts and array.ndim and len(array) % 3 == 0:
        array = np.split(array, 3)[('query', 'key', 'value').index(parts[0])]
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
        if ours.startswith('patches.'):
            array = array.reshape(math.prod(array.shape[:3]), array.shape[-1])
    elif array.ndim == 2:
        array = array.T
    size, first, last = math.prod(shape), shape[0], shape[-1]
    merged = {(size,), (first, size // first), (size // last, last)}  # PyTorch merges the heads
    return array.reshape(shape) if 'Attention' in ours and array.shape in merged else array


def _is_of_head(name: str) -> bool:
    return name.split('.')[0] in HEADS


def _shortened(names: Iterable[str]) -> str:
    """Lists the first names, and how many more there are."""
    names = list(dict.fromkeys(names))
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(names[:_SHOWN]) + more
