"""The `Network` type and the registries of encoders and heads."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_extract import checks
from ssl_extract.errors import UserError
from ssl_extract.registry import Registry, split_chain

# The traits of an encoder.
# before: whether it stands before another encoder in a chain, which it takes as `encoder`.
# vocabulary: the number of tokens that it knows; 0 of encoders of other inputs.
ENCODERS = Registry('encoder', before=False, vocabulary=0)
HEADS = Registry('head')
register, register_head = ENCODERS.register, HEADS.register

Variables = dict[str, Any]
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
# Inputs of networks, in error messages.
IMAGES, REPRESENTATIONS = 'images [B, H, W, C] in [0, 1]', 'representations [B, D]'
WAVES = 'waveforms [B, T] above -1, with -1 behind the end of a clip'
TOKENS = 'tokens [B, T] as whole numbers, with -1 behind the end of a text'


class Network(NamedTuple):
    """An encoder (inputs `[B, ...]` to representations) or a head (`[B, D]` to `[B, E]`).

    All functions are compiled where they are called outside of `jit`.

    Attributes:
        init: (key, inputs) -> variables `{'params': ..., 'batch_stats': ...}`, float32; `inputs`
            may be a `jax.ShapeDtypeStruct`. A network without BatchNorm has an empty `batch_stats`.
        apply: (variables, inputs) -> outputs float32 `[B, D]`, with BatchNorm frozen at the running
            statistics: a row's output depends on the row only, and no statistic changes.
        train: (variables, inputs) -> (outputs float32 `[B, D]`, new batch_stats), with the
            statistics of the batch; on a mesh of Auto axes, of the global batch.
        branch: whether the network is a head that takes the representations wherever it stands in a
            chain, and whose outputs no other head takes.
        layers: (variables, inputs) -> float32 `[B, D]` of each layer, as `apply` computes it: of
            the input of the first block, and of the output of each block or stage, pooled as the
            representation is. The last is the representation. None of networks without.
        spatial: (variables, inputs) -> float32 `[B, h, w, D]`, whose mean over h and w is the
            representation. None of networks without.
    """

    init: Callable[[jax.Array, Any], Variables]
    apply: Callable[[Variables, jax.Array], jax.Array]
    train: Callable[[Variables, jax.Array], tuple[jax.Array, Any]]
    branch: bool = False
    layers: Callable[[Variables, jax.Array], tuple[jax.Array, ...]] | None = None
    spatial: Callable[[Variables, jax.Array], jax.Array] | None = None


def make(spec: str) -> Network:
    """Makes the encoder of a spec, or of a chain whose last part is the network.

    Args:
        spec: such as `'resnet18(stem="cifar")'` or `'normalize | resnet50'`.

    Raises:
        UserError: the name, an argument or its value is wrong, or the chain has another order.
    """
    *firsts, last = split_chain(spec, ENCODERS.kind) or [spec]
    for part in (*firsts, last):
        if ENCODERS.traits(part).before is (part is last):
            raise UserError(
                f'encoder {checks.shown(spec)}: {checks.shown(part)} stands '
                f'{"last" if part is last else "before another"}; '
                "write one network, and before it what changes its inputs: 'normalize | resnet18'"
            )
    network = ENCODERS.make(last)
    for part in reversed(firsts):
        network = ENCODERS.make(part, encoder=network)
    return network


def from_module(
    module: nn.Module, rank: int, takes: str = '', layers: bool = False, spatial: bool = False
) -> Network:
    """Makes a Network of a Linen module called as `module(inputs, train: bool)`.

    Args:
        module: a module with no collections but `params` and `batch_stats`, and no randomness but
            that of the initializers.
        rank: the number of axes of `inputs`: 4 for images, 2 for representations and waveforms.
        takes: the inputs in an error message; '' is images or representations, by the rank.
        layers: whether the module keeps `[B, D]` of each of its layers, in order, by
            `self.sow('intermediates', 'layers', pooled)`.
        spatial: whether the module keeps what it takes the last mean of, `[B, h, w, D]`, by
            `self.sow('intermediates', 'spatial', x)`.
    """
    takes = takes or (IMAGES if rank == 4 else REPRESENTATIONS)

    @jax.jit
    def init_fn(key: jax.Array, inputs: jax.Array) -> Variables:
        variables = module.init(key, inputs, train=False)
        return {'params': variables['params'], 'batch_stats': variables.get('batch_stats', {})}

    def init(key: jax.Array, inputs: Any) -> Variables:
        check_inputs(inputs, rank, takes)
        return init_fn(key, jnp.zeros((1, *inputs.shape[1:]), inputs.dtype))

    @jax.jit
    def apply(variables: Variables, inputs: jax.Array) -> jax.Array:
        check_inputs(inputs, rank, takes)
        return module.apply(variables, inputs, train=False).astype(jnp.float32)

    @jax.jit
    def train(variables: Variables, inputs: jax.Array) -> tuple[jax.Array, Any]:
        check_inputs(inputs, rank, takes)
        outputs, updated = module.apply(variables, inputs, train=True, mutable=['batch_stats'])
        return outputs.astype(jnp.float32), updated.get('batch_stats', {})

    def kept(name: str) -> Callable[[Variables, jax.Array], tuple[jax.Array, ...]]:
        @jax.jit
        def keep(variables: Variables, inputs: jax.Array) -> tuple[jax.Array, ...]:
            check_inputs(inputs, rank, takes)
            _, found = module.apply(variables, inputs, train=False, mutable=['intermediates'])
            return tuple(x.astype(jnp.float32) for x in found['intermediates'][name])

        return keep

    last = kept('spatial')

    def mapped(variables: Variables, inputs: jax.Array) -> jax.Array:
        return last(variables, inputs)[0]

    return Network(
        init,
        apply,
        train,
        layers=kept('layers') if layers else None,
        spatial=mapped if spatial else None,
    )


def check_inputs(inputs: Any, rank: int, takes: str = IMAGES) -> None:
    """Raises UserError unless `inputs` is a floating array of `rank` axes; `takes` is in words."""
    if len(inputs.shape) != rank or not jnp.issubdtype(inputs.dtype, jnp.floating):
        shown = f'{inputs.dtype}{list(inputs.shape)}'
        raise UserError(f'a network got inputs {shown}: give it floating {takes}')


def check_dtype(dtype: str) -> Any:
    """Returns the compute dtype `dtype`; parameters and statistics are always float32."""
    if dtype not in DTYPES:
        raise UserError(f'unknown dtype {dtype!r}: write one of {", ".join(DTYPES)}')
    return DTYPES[dtype]


def num_params(variables: Variables) -> int:
    """Counts the parameters, without running statistics, of arrays or shapes."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(variables['params']))


def dim(network: Network, input_shape: tuple[int, ...]) -> int:
    """Returns the width D of a network's outputs for an input of `input_shape`, from shapes only.

    >>> from ssl_extract import encoders
    >>> encoders.dim(encoders.make('resnet18(stem="cifar")'), (32, 32, 3))
    512
    """
    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), inputs)
    return jax.eval_shape(network.apply, variables, inputs).shape[-1]
