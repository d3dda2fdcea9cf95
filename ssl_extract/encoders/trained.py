"""The `Encoder` type: a trained network, in memory and on disk."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import numerics
from ssl_extract.encoders import base, chain
from ssl_extract.encoders.base import HEADS, Network
from ssl_extract.errors import UserError
from ssl_extract.runtime import checkpoint, parallel

# Cached, so that all encoders with the same spec share one Network and one compiled program.
make = functools.cache(base.make)
make_head = functools.cache(HEADS.make)


class Encoder(NamedTuple):
    """A network with its variables.

    Attributes:
        spec: of the network, such as `'resnet18(stem="cifar")'`.
        variables: `{'params', 'batch_stats'}` of the network.
        input_shape: of one input.
        heads: (name, spec) of the networks behind the encoder in training, in order; see `chain`.
        head_variables: the variables of the heads, by name.
    """

    spec: str
    variables: Any
    input_shape: tuple[int, ...]
    heads: tuple[tuple[str, str], ...] = ()
    head_variables: dict[str, Any] = {}  # noqa: RUF012  (never changed)

    def __repr__(self) -> str:
        """Returns the network and its inputs in a line; the weights would fill pages."""
        return f'Encoder({self.spec!r}, input_shape={self.input_shape}, dim={self.dim})'

    @property
    def network(self) -> Network:
        """Returns the pure functions of `spec`; the same object for the same spec."""
        return make(self.spec)

    @property
    def dim(self) -> int:
        """Returns the width of a representation."""
        inputs = jax.ShapeDtypeStruct((1, *self.input_shape), jnp.float32)
        return jax.eval_shape(self.network.apply, self.variables, inputs).shape[-1]

    def apply(self, inputs: jax.Array) -> jax.Array:
        """Computes representations float32 [B, D] of decoded inputs, float [B, ...]."""
        return self.network.apply(self.variables, inputs)

    def through_heads(self) -> tuple[Callable, Any]:
        """Returns `(apply, joint variables)` of the encoder with all heads but branches."""
        parts = {'encoder': self.variables, **self.head_variables}
        kinds = self.variables
        joint = {kind: {name: part[kind] for name, part in parts.items()} for kind in kinds}
        return through(self.spec, self.heads), joint


@functools.cache
def through(spec: str, heads: tuple[tuple[str, str], ...]) -> Callable:
    """Returns `(joint variables, inputs) -> outputs` of an encoder with all heads but branches."""
    networks = networks_of(spec, heads)

    def apply(variables: Any, inputs: jax.Array) -> jax.Array:
        for name, network in networks.items():
            if not network.branch:
                inputs = network.apply(chain.part(variables, name), inputs)
        return inputs

    return apply


def networks_of(spec: str, heads: tuple[tuple[str, str], ...]) -> dict[str, Network]:
    """Returns the networks of an encoder and its heads, by name."""
    return {'encoder': make(spec)} | {name: make_head(head) for name, head in heads}


def shapes_of(
    spec: str, heads: tuple[tuple[str, str], ...], input_shape: tuple[int, ...]
) -> dict[str, Any]:
    """Returns the shapes of the joint variables of an encoder and its heads; see `chain.init`."""
    networks = networks_of(spec, heads)
    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    return jax.eval_shape(lambda key: chain.init(networks, key, inputs), jax.random.key(0))


def content_hash(encoder: Encoder) -> str:
    """Hashes the network and the parameters of an encoder, heads included: 16 hex digits."""
    digest = hashlib.sha256(f'{encoder.spec} {encoder.heads}'.encode())
    tree = {'encoder': encoder.variables, **encoder.head_variables}
    for path, leaf in jax.tree.leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def save(folder: epath.PathLike, encoder: Encoder, **meta: Any) -> None:
    """Writes an encoder to a folder, and `meta` to meta.json, which is written last."""
    described = {
        'encoder': encoder.spec,
        'heads': dict(encoder.heads),
        'input_shape': list(encoder.input_shape),
        **meta,
    }
    checkpoint.save_encoder(folder, encoder.variables, described, encoder.head_variables)


def load(folder: epath.PathLike, mesh: jax.sharding.Mesh | None = None) -> Encoder:
    """Reads an encoder that `save` wrote, onto a mesh (default: of all devices).

    Raises:
        UserError: the folder holds no encoder, or an encoder that is damaged or has diverged.
    """
    mesh = mesh or parallel.data_mesh()
    meta = checkpoint.read_meta(folder)
    shape, heads = tuple(meta['input_shape']), tuple((meta.get('heads') or {}).items())
    shapes = shapes_of(meta['encoder'], heads, shape)
    variables = checkpoint.load_encoder(folder, chain.part(shapes, 'encoder'), mesh)
    templates = {name: chain.part(shapes, name) for name, _ in heads}
    head_variables = checkpoint.load_encoder(folder, templates, mesh, 'heads') if heads else {}
    if not numerics.is_finite((variables, head_variables)):
        raise UserError(
            f'{folder}: the parameters of this encoder are not finite: its training has diverged; '
            'name another folder, or train it again with a lower learning rate'
        )
    return Encoder(meta['encoder'], variables, shape, heads, head_variables)
