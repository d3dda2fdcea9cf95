"""Encoders from files of weights of PyTorch.

ResNets are read by the names of torchvision, as in the files of SimSiam, SimCLR, MoCo, BYOL, SwAV
and Barlow Twins, vision transformers by those of timm and DINO, and the speaker encoder of GE2E by
Resemblyzer's. What stands before the names of an encoder (`module.`, `backbone.`,
`state_dict.module.encoder_q.`) is found, not listed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from ssl_extract import numerics
from ssl_extract.encoders import base, torch_files, torch_names, trained
from ssl_extract.encoders.torch_names import HEAD, Arrays, Layout
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.runtime import parallel

# Of several encoders in one file, its authors evaluate this one: DINO's teacher, BYOL's online
# network, the queries' encoder of MoCo and the base encoder of MoCo v3.
PREFERRED = ('teacher', 'online', 'encoder_q', 'base_encoder')


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
        return f'{note}; left out: {torch_names.shortened(self.left_out) or "nothing"}'


def load(
    path: epath.PathLike,
    spec: str,
    size: int | None = None,
    prefix: str | None = None,
    head: str = '',
    mesh: jax.sharding.Mesh | None = None,
    *,
    length: int | None = None,
) -> Loaded:
    """Reads an encoder from a file of weights, onto a mesh (default: of all devices).

    Args:
        path: a file: `.safetensors`, or what `torch.save` wrote.
        spec: of the encoder, such as `'normalize | resnet50'`; its architecture is the file's.
        size: side of the images, in pixels; None of an encoder of waveforms.
        prefix: what stands before the names of the encoder's arrays; None finds it.
        head: of the projection head behind the encoder, such as `'simclr(hidden=512, dim=128)'`; ''
            leaves the head out.
        mesh: the devices.
        length: samples of the waveforms; None of an encoder of images.

    Raises:
        UserError: the file cannot be read, or its arrays are not those of the networks.
    """
    shape, said = input_shape(size, length)
    arrays = torch_files.read(path)
    template = _shapes(trained.make(spec), shape)
    layout = torch_names.layout_of(spec, template)
    parts = torch_names.parts_of(arrays, layout)
    prefix = _chosen(path, parts, prefix, layout, arrays)
    names = parts[prefix]
    own = {name: arrays[full] for name, full in names.items()}
    used = torch_names.names_in(template, layout)
    what, holds = f'encoder {spec!r} with {said}', torch_names.described(own)
    values = _filled(path, what, template, layout, own, f'; the file holds {holds}')
    encoder = Encoder(spec, values, shape)
    if head:
        behind = {name: array for name, array in own.items() if name not in used}
        template = _shapes(trained.make_head(head), (encoder.dim,))
        values = _filled(path, f'head {head!r}', template, HEAD, torch_names.head_of(behind))
        encoder = encoder._replace(heads=(('head', head),), head_variables={'head': values})
    variables = (encoder.variables, encoder.head_variables)
    if not numerics.is_finite(variables):
        raise UserError(f'{path}: its arrays hold NaN, infinity or numbers above 1e19')
    variables, heads = parallel.replicate(variables, mesh or parallel.data_mesh())
    read = {full for name, full in names.items() if head or name in used}
    encoder = encoder._replace(variables=variables, head_variables=heads)
    return Loaded(encoder, prefix, tuple(sorted(arrays.keys() - read)))


def input_shape(size: int | None, length: int | None) -> tuple[tuple[int, ...], str]:
    """Returns the shape of an encoder's inputs, and the argument that gives it, as written.

    Args:
        size: side of images, in pixels.
        length: samples of waveforms.

    Raises:
        UserError: both are given, or none.
    """
    if (size is None) == (length is None):
        raise UserError(
            f'size={size} and length={length} of an encoder from a file: write one of them, '
            'size=224 for images of 224x224 or length=16000 for waveforms of 16000 samples'
        )
    return ((size, size, 3), f'size={size}') if length is None else ((length,), f'length={length}')


def _shapes(network: base.Network, input_shape: tuple[int, ...]) -> Any:
    """Returns the shapes of a network's variables."""
    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), inputs)


def _filled(
    path: epath.PathLike,
    what: str,
    template: Any,
    layout: Layout,
    arrays: Arrays,
    ending: str = '',
) -> Any:
    """Returns the variables of a network, or says what does not fit."""
    values, problems = torch_names.fill(template, layout, arrays)
    if problems:
        raise UserError(f'{path}: its arrays do not fit {what}: {"; ".join(problems)}{ending}')
    return values


def _chosen(
    path: epath.PathLike, parts: dict[str, Any], prefix: str | None, layout: Layout, arrays: Arrays
) -> str:
    """Returns the prefix of the encoder to read."""
    if not parts:
        raise UserError(
            f'{path}: it holds no {layout.title} with the names of public files; it holds '
            f'{torch_names.shortened(arrays)}'
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
