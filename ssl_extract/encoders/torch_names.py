"""The names and layouts of networks in files of PyTorch.

A file names arrays as its code names modules. Here each of our arrays gets the name that
torchvision (ResNets), timm (vision transformers) or Resemblyzer (the LSTM of GE2E) gives it, and
its array is laid out anew.
"""

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from ssl_extract.errors import UserError

Arrays = dict[str, np.ndarray]

# What stands behind an encoder, under the same prefix; no representation depends on it.
HEADS = ('fc', 'head', 'heads', 'linear', 'projector', 'projection_head', 'predictor', 'prototypes')
HEADS += ('similarity_weight', 'similarity_bias')  # of the loss of GE2E
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

LSTM = Layout('LSTM of GE2E', r'lstm\.weight_ih_l0$', _LEAVES)


HEAD = Layout(
    'projection head',
    '',
    ((r'Dense_(\d+)', r'linear+\1'), (r'BatchNorm_(\d+)', r'bn+\1'), *_LEAVES),
)


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
        arrays: of one encoder, by the names in PyTorch.
    """
    counts: dict[str, set[str]] = {}
    for name in arrays:
        if match := re.match(r'(layer\d+|blocks)\.(\d+)\.', name):
            counts.setdefault(match[1], set()).add(match[2])
    if {'lstm.bias_hh_l0', 'linear.bias'} <= arrays.keys():
        width, dim = arrays['lstm.bias_hh_l0'].size // 4, arrays['linear.bias'].size
        depth = sum(name.startswith('lstm.bias_hh_l') for name in arrays)
        return f'ge2e(width={width}, depth={depth}, dim={dim})'
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


def layout_of(spec: str, template: Any) -> Layout:
    """Returns the layout of an encoder.

    Args:
        spec: of the encoder.
        template: its variables, or their shapes.

    Raises:
        UserError: no file of PyTorch has such an encoder.
    """
    params = template['params']
    if {'stem', 'stem_norm', 'stage0_block0'} <= params.keys():
        return RESNET
    if {'patches', 'token', 'position', 'block0'} <= params.keys():
        return VIT
    if {'lstm', 'linear'} == params.keys():
        return LSTM
    raise UserError(
        f'encoder {spec!r} has no counterpart in files of PyTorch: write resnet18, resnet34, '
        'resnet50, resnet, vit_ti, vit_s, vit or ge2e, with their arguments'
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


def names_in(template: Any, layout: Layout) -> set[str]:
    """Returns the names in PyTorch of the arrays of one of our networks.

    Args:
        template: its variables, or their shapes.
        layout: of the network.
    """
    return {_name_of(_ours(keys), layout) for keys, _ in jax.tree.leaves_with_path(template)}


def fill(template: Any, layout: Layout, arrays: Arrays) -> tuple[Any, list[str]]:
    """Returns the template with the values of the arrays, and what does not fit.

    Args:
        template: variables of one of our networks, or their shapes.
        layout: of the network.
        arrays: of the network alone, by the names of the layout.
    """
    paths, structure = jax.tree.flatten_with_path(template)
    values, missing, wrong, used = [], [], [], names_in(template, layout)
    for keys, leaf in paths:
        ours = _ours(keys)
        name = _name_of(ours, layout)
        if name not in arrays:
            missing.append(name)
            continue
        value = _converted(arrays[name], ours, leaf.shape)
        values.append(value)
        if value.shape != leaf.shape:
            wrong.append(f'{name} {list(value.shape)} for {list(leaf.shape)}')
    more = [name for name in arrays if name not in used and not is_of_head(name)]
    problems = {
        'it lacks': missing,
        'of another shape are': wrong,
        'without a place are': more,
    }
    for names in problems.values():
        names.sort(key=lambda name: 'running' in name)
    listed = [f'{what} {shortened(names)}' for what, names in problems.items() if names]
    return None if listed else jax.tree.unflatten(structure, values), listed


def _ours(keys: tuple) -> str:
    """Returns our name of an array, such as 'stage0_block1.Conv_0.kernel', of its path."""
    return '.'.join(key.key for key in keys[1:])


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


def head_of(arrays: Arrays) -> Arrays:
    """Returns the arrays of a head that is a torch.nn.Sequential, by the names of `HEAD`.

    The names are 'linear1.weight', 'bn1.running_mean', ..., in the order of the layers. A bias that
    a BatchNorm follows is subtracted from the running mean, since our heads have none there.

    >>> import numpy as np
    >>> sorted(head_of({'fc.0.weight': np.ones((2, 2)), 'fc.2.weight': np.ones((2, 2))}))
    ['linear1.weight', 'linear2.weight']

    Args:
        arrays: of an encoder and its head, named without the prefix.
    """
    layers: dict[tuple[str, int], Arrays] = {}
    for name, array in arrays.items():
        if is_of_head(name) and (match := re.fullmatch(r'(\w+)(?:\.(\d+))?\.(\w+)', name)):
            layers.setdefault((match[1], int(match[2] or 0)), {})[match[3]] = array
    found, counts, before = {}, {'linear': 0, 'bn': 0}, ''
    for _, layer in sorted(layers.items()):
        kind = 'bn' if 'running_mean' in layer else 'linear'
        counts[kind] += 1
        own = f'{kind}{counts[kind]}'
        found |= {f'{own}.{leaf}': array for leaf, array in layer.items()}
        mean, bias = layer.get('running_mean'), found.get(f'{before}.bias')
        if before.startswith('linear') and np.shape(mean) == np.shape(bias) != ():
            found[f'{own}.running_mean'] = mean - found.pop(f'{before}.bias')
        before = own
    return found


def is_of_head(name: str) -> bool:
    """Returns whether an array, named without the prefix, is of a head."""
    return name.split('.')[0] in HEADS


def shortened(names: Iterable[str]) -> str:
    """Lists the first names, and how many more there are."""
    names = list(dict.fromkeys(names))
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(names[:_SHOWN]) + more
