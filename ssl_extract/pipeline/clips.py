"""Spectrograms of an attacker's clips and of their views, for the report."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import augment, data, padding
from ssl_extract.encoders import log_mel
from ssl_extract.pipeline import stage
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.sets import Sets, pool_order
from ssl_extract.pipeline.victim import make_augmentation

COUNT, LONGEST = 3, 10.0  # clips, and seconds of a clip
FRAME, HOP, MELS = 0.025, 0.01, 40  # seconds of a frame and to the next, and bands
LEAST_RATE, USUAL_RATE = 1_000, 16_000  # in Hz; the latter is taken where the rate is not known


def spectrograms_of(run: Run, sets: Sets) -> str | None:
    """Computes spectrograms of the first clips in the order of the pool, and of a view of each.

    The arrays are those of `report.figures.clips`.

    Args:
        run: the run.
        sets: the run's data.

    Returns:
        The folder of the arrays in the workdir; None where inputs are no waveforms.
    """
    if sets.pool.decode != 'waves':
        return None
    c = run.config
    rate = data.rate_of(c.attack.data or c.data.name)
    pretrains = c.victim.source == 'pretrain' or c.baselines.scratch_epochs
    views = {'victim.augmentation': c.victim.augmentation} if pretrains else {}
    views['attack.query_augmentation'] = c.attack.query_augmentation
    views['attack.student_augmentation'] = c.attack.student_augmentation
    views = {field: view for field, view in views.items() if view not in ('', 'none')}
    spec = {'stage': 'clips', 'pool': sets.pool_spec, 'seed': c.seed, 'rate': rate, 'views': views}

    def make(folder: epath.Path) -> dict[str, np.ndarray]:
        del folder
        chosen = pool_order(len(sets.pool.inputs), c.seed)[:COUNT]
        waves = data.decoder(sets.pool)(sets.pool.inputs[chosen])
        return _arrays(waves, views, rate, stage.seed_of('clips', c.seed))

    stage.cached(run.workspace, 'clips', spec, make, stage.ARRAYS)
    return f'clips/{stage.address(run.workspace, spec)}'


def _arrays(waves: jax.Array, views: dict[str, str], rate: int, seed: int) -> dict[str, Any]:
    known = rate >= LEAST_RATE
    scale = rate if known else USUAL_RATE
    shown = [waves]
    for number, view in enumerate(views.values()):
        draw = jax.jit(functools.partial(augment.views, make_augmentation(view)))
        shown.append(draw(jax.random.fold_in(jax.random.key(seed), number), waves))
    rows = jnp.concatenate(shown)
    rows = rows[:, : min(int(padding.lengths(rows).max()), round(LONGEST * scale))]
    mels, hop = min(MELS, scale // 100), round(HOP * scale)
    frames, mask = log_mel.log_mel(rows, scale, round(FRAME * scale), hop, mels)
    values = np.where(mask[..., None], frames, np.nan).astype(np.float16)
    return {
        'spectrograms': values.reshape(len(shown), -1, *values.shape[1:]),
        'fields': np.array(['', *views]),
        'hop': np.array(hop / rate if known else hop),
        'hertz': log_mel.centers(scale, mels) if known else np.zeros(0),
    }
