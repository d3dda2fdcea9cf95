"""Normalization of images by the mean and deviation of each channel.

Pretrained encoders expect images that are normalized as in their training; the data of this package
lies in [0, 1]. In a chain, `normalize | resnet50` is ResNet-50 on normalized images.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssl_extract.encoders.base import Network, check_inputs, register
from ssl_extract.errors import UserError
from ssl_extract.ranges import Positive, Real

# (mean, std) of the channels red, green, blue in [0, 1].
PRESETS = {
    'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision
    'clip': ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    'inception': ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # timm's ViTs that were trained by Google
}


@register('normalize', before=True)
def normalize(
    preset: str = 'imagenet',
    mean: tuple[Real, ...] = (),
    std: tuple[Positive, ...] = (),
    *,
    encoder: Network,
) -> Network:
    """Makes the following encoder of a chain see `(image - mean) / std`; it has no parameters.

    >>> from ssl_extract import encoders
    >>> network = encoders.make('normalize("clip") | resnet18(stem="patch", width=8, stages=(1,))')
    >>> encoders.dim(network, (16, 16, 3))
    8

    Args:
        preset: 'imagenet', 'clip' or 'inception', where `mean` and `std` are left out.
        mean: of each channel of an image in [0, 1].
        std: standard deviation of each channel.
        encoder: the following encoder.

    Raises:
        UserError: an argument has a wrong value, or later the images have other channels.
    """
    if preset not in PRESETS:
        raise UserError(f'unknown preset {preset!r}: write one of {", ".join(PRESETS)}')
    if not isinstance(encoder, Network):
        raise UserError(f'encoder={encoder!r}: leave it out, it is the next part of the chain')
    if len(mean) != len(std):
        raise UserError(f'mean={mean} and std={std}: write one number of each for each channel')
    mean, std = (mean, std) if mean else PRESETS[preset]

    def normalized(images: jax.Array) -> jax.Array:
        check_inputs(images, 4)
        if images.shape[-1] != len(mean):
            raise UserError(
                f'normalize has mean and std of {len(mean)} channels, the images have '
                f'{images.shape[-1]}: write one number of each for each channel'
            )
        center, scale = (jnp.asarray(x, images.dtype)[None, None, None] for x in (mean, std))
        return (images - center) / scale

    def after(function: Callable) -> Callable:
        return jax.jit(lambda variables, images: function(variables, normalized(images)))

    return Network(
        encoder.init,
        after(encoder.apply),
        after(encoder.train),
        layers=encoder.layers and after(encoder.layers),
        spatial=encoder.spatial and after(encoder.spatial),
    )
