"""Recognition of the defense behind answers."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
import scipy
from threadpoolctl import threadpool_limits

from ssl_extract import augment
from ssl_extract.recovery import pairs

SIZE = 64  # answers that are classified together
_VARIANTS, _SETS, _VOTES, _ROWS = 4, 8, 31, 1024


def default_candidates(width: int, spread: float) -> tuple[str, ...]:
    """Returns the defenses to tell apart: none, noise, rounding, top-k, unit length, bits.

    Args:
        width: D of the answers.
        spread: of the answers; the noise makes up 6, 25, 50, 75 and 90 % of the variance.
    """
    noise = [
        f'gaussian_noise(stddev={spread * share**0.5!r})' for share in (0.06, 0.25, 0.5, 0.75, 0.9)
    ]
    counts = sorted({max(1, round(width * share)) for share in (0.05, 0.1, 0.25, 0.5)})
    top = [f'top_k(k={k})' for k in counts]
    return ('', *noise, 'round(decimals=0)', 'round(decimals=1)', *top, 'normalize', 'binarize')


@threadpool_limits.wrap(1)  # small products: threads only wait
def recognize(
    answers: np.ndarray,
    clean: np.ndarray,
    inputs: np.ndarray,
    candidates: Sequence[str],
    seed: int,
    decode: Callable[[jax.Array], jax.Array] = augment.to_float,
) -> tuple[str, float]:
    """Recognizes the defense of answers among candidates.

    The recognition is that of BESA (arXiv 2506.04556); the classifier and its features are a choice
    of this project. The representations of the attacker's encoder are sent through each candidate.
    A random forest learns to tell sets of `SIZE` perturbed representations apart by `features`.
    The forest then classifies sets of the answers, which vote. The victim's encoder differs from
    the attacker's, so the forest also learns from `pairs.variants` of the representations.

    Args:
        answers: float32 [K, D], received.
        clean: float32 [N, D], the representations of the attacker's encoder.
        inputs: [N, ...] as stored, the inputs of `clean`.
        candidates: specs of defenses.
        seed: of chance.
        decode: stored inputs to what encoders see.

    Returns:
        (the candidate with the most votes, its share of the votes).
    """
    from sklearn.ensemble import RandomForestClassifier  # takes a second to import

    rng, unit = np.random.default_rng((seed, 8)), pairs.spread(answers)
    size = min(SIZE, len(answers))
    clean, inputs = clean[:_ROWS], inputs[:_ROWS]
    factors = [pairs.scale(spec, clean, inputs, unit, seed, decode) for spec in candidates]
    samples, labels = [], []
    for number, varied in enumerate(pairs.variants(clean, _VARIANTS, seed)):
        for label, (spec, factor) in enumerate(zip(candidates, factors, strict=True)):
            scaled = varied * factor
            perturbed = pairs.perturb(spec, scaled, inputs, seed + number, decode).perturbed
            for _ in range(_SETS):
                rows = rng.choice(len(perturbed), min(size, len(perturbed)), replace=False)
                samples.append(features(perturbed[rows], unit))
                labels.append(label)
    forest = RandomForestClassifier(100, random_state=seed).fit(samples, labels)
    sets = [rng.choice(len(answers), size, replace=False) for _ in range(_VOTES)]
    votes = forest.predict([features(answers[rows], unit) for rows in sets])
    label = np.bincount(votes).argmax()
    return candidates[label], float(np.mean(votes == label))


def features(rows: np.ndarray, unit: float) -> np.ndarray:
    """Computes numbers that tell perturbations apart, whatever the order of coordinates.

    The features are: the logarithms of the shares of zeros and of negative values (a few zeros
    already exclude noise); the shares of the nonzeros on grids of 1, 0.1 and 0.01; the share of
    distinct values; the variation of the rows' numbers of nonzeros and of the rows' norms; norm and
    spread in `unit`s; skewness and kurtosis around the coordinates' means; the evenness of the
    spectrum, which noise fills; the smallest deviations of coordinates in `unit`s, which noise
    raises.

    Args:
        rows: float [K, D].
        unit: the spread of all answers.

    Returns:
        float [18].
    """
    x = np.asarray(rows, np.float64)
    unit = unit or 1.0
    nonzero = x[x != 0]
    grids = [
        np.mean(np.abs(nonzero * 10**d - np.round(nonzero * 10**d)) < 1e-3) if nonzero.size else 1.0
        for d in range(3)
    ]
    counts, norms = np.count_nonzero(x, axis=1), np.linalg.norm(x, axis=1)
    centered = (x - x.mean(axis=0)) / unit
    deviations = centered.std(axis=0)
    z = (centered / np.where(deviations > 0, deviations, 1))[:, deviations > 0]
    values = np.linalg.svd(centered, compute_uv=False) ** 2
    values = values[: max(1, min(len(x) - 1, x.shape[1]))]
    total = max(values.sum(), 1e-12)
    return np.array(
        [
            np.log10(np.mean(x == 0) + 1e-5),
            np.log10(np.mean(x < 0) + 1e-5),
            *grids,
            len(np.unique(x.astype(np.float32))) / x.size,
            counts.std() / x.shape[1],
            np.mean(counts) / x.shape[1],
            norms.std() / (norms.mean() or 1.0),
            np.log(max(norms.mean() / unit, 1e-12) / x.shape[1] ** 0.5),
            np.log(max(pairs.spread(x) / unit, 1e-12)),
            scipy.stats.skew(z, axis=None) if z.size else 0.0,
            scipy.stats.kurtosis(z, axis=None) if z.size else 0.0,
            total**2 / max(np.sum(values**2), 1e-24) / len(values),
            np.median(values) / total * len(values),
            *np.quantile(deviations, (0.0, 0.1, 0.3)),
        ]
    )
