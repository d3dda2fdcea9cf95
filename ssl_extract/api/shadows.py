"""Training of a victim's shadows, for the facade."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from ssl_extract import data
from ssl_extract.api.inputs import Inputs, dataset_of
from ssl_extract.api.training import pretrain
from ssl_extract.checks import check_number, check_whole
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.runtime import files


def train_shadows(
    inputs: Inputs,
    seeds: Sequence[int],
    *,
    share: float = 0.5,
    folder: epath.PathLike | None = None,
    **recipe: Any,
) -> tuple[Encoder, ...]:
    """Pretrains shadows of a victim, each on its own random part of the inputs.

    The shadows of `ownership` tests are exchangeable with an independent encoder of the same recipe
    only if `inputs` holds none of the victim's training inputs. Two shadows share about `share` of
    their inputs.

    The shadows are trained one by one, and all use one compiled step. On CPU, 8 trainings of a
    small ResNet of width 8 as one program take 0.94 times as long as one by one
    (`python -m benchmarks.replicas`).

    Args:
        inputs: [N, ...], of the victim's source.
        seeds: one for each shadow, all different, and none the victim's: of its part of the inputs,
            its initialization and its order.
        share: the share of the inputs that each shadow sees.
        folder: keeps each shadow in a folder of its seed; a killed call goes on there, and more
            seeds add shadows.
        **recipe: the victim's arguments of `pretrain`: `encoder`, `method`, `epochs` and others.

    Returns:
        The shadows, in the order of the seeds.

    Raises:
        UserError: an argument is wrong, or a folder holds the encoder of another call.
    """
    dataset = dataset_of(inputs, 'inputs')
    check_number('share', share, above=0, most=1)
    for seed in seeds:
        check_whole('seeds', seed, 0)
    if not len(seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f'seeds={list(seeds)}: give one or more, all different')
    for taken in ('seed', 'folder'):
        if taken in recipe:
            raise UserError(f'{taken}: not of one shadow; write seeds and folder of all')
    size = round(share * len(dataset.inputs))
    return tuple(
        pretrain(
            dataset._replace(
                inputs=data.take(dataset.inputs, _part(seed, len(dataset.inputs), size)),
                labels=None,
            ),
            seed=seed,
            folder=None if folder is None else files.absolute(folder) / str(seed),
            **recipe,
        )
        for seed in seeds
    )


def _part(seed: int, available: int, size: int) -> np.ndarray:
    """Draws the rows of one shadow, int [size], in increasing order."""
    return np.sort(np.random.default_rng(seed).permutation(available)[:size])
