"""Recognition and removal of a perturbation (BESA).

arXiv 2506.04556.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging
from threadpoolctl import threadpool_limits

from ssl_extract.errors import UserError
from ssl_extract.recovery import pairs, recognition
from ssl_extract.recovery.base import Received, Recover, Shadow, answered_rows, register, replaced
from ssl_extract.recovery.shrink import wiener

_LEAST = 16  # answers
_SAMPLES = 40_000  # values that the network is trained on
_VARIANTS = 4  # of the shadow's representations
_BLOCK = 512  # rows recovered at a time


@register('denoise', needs=('shadow',), same_width=True)
def denoise(known: str = '', candidates: Sequence[str] = ()) -> Recover:
    """Recovers clean representations with a network trained on the attacker's shadow encoder.

    The steps are those of BESA. The attacker sends the shadow's representations through each
    candidate defense, recognizes by them the defense of the answers (`recognition.recognize`),
    trains a network from perturbed to clean representations under the recognized defense, and
    applies the network to the answers. Answers recognized as undefended stay as they are. BESA's
    networks see whole representations. This network sees one value at a time, in a context (see
    `fit`), so that the coordinates of the two encoders need not correspond.

    >>> recover = denoise(known='gaussian_noise(stddev=0.1)')

    Args:
        known: the defense, for an attacker who knows the defense; '' recognizes the defense.
        candidates: defenses to tell apart, `''` for none; `recognition.default_candidates` if
            empty.

    Raises:
        UserError: a defense is unknown or changes the width of answers; the shadow has another
            width than the answers; there are fewer than 16 answers.
    """
    for spec in (known, *candidates):
        pairs.check_width(spec)

    def recover(received: Received, shadow: Shadow) -> Received:
        answers = answered_rows(received, _LEAST, 'denoise')
        clean = shadow.represent(received.inputs)
        if clean.shape[1] != answers.shape[1]:
            raise UserError(
                f'attack.recover=denoise: the answers have {answers.shape[1]} coordinates and the '
                f"attacker's own encoder has {clean.shape[1]}: give it an encoder of that width"
            )
        spec, unit = known, pairs.spread(answers)
        inputs, seed, decode = received.inputs, shadow.seed, shadow.decode
        if unit == 0:  # nothing is left to recover from
            return received
        if not known:
            among = candidates or recognition.default_candidates(answers.shape[1], unit)
            spec, votes = recognition.recognize(answers, clean, inputs, among, seed, decode)
            logging.info('denoise: recognized %r with %.0f %% of votes', spec, 100 * votes)
        if not spec:
            return received
        factor = pairs.scale(spec, clean, inputs, unit, seed, decode)
        examples = [
            pairs.perturb(spec, varied * factor, inputs, seed + number, decode)
            for number, varied in enumerate(pairs.variants(clean, _VARIANTS, seed))
        ]
        return replaced(received, fit(examples, seed)(answers))

    return recover


@threadpool_limits.wrap(1)  # small products: threads only wait
def fit(examples: Sequence[pairs.Pairs], seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Fits a network from perturbed to clean values, the same network for all coordinates.

    The network sees the value, the mean and deviation of the row, the mean and deviation of the
    coordinate over all rows, and the value's Wiener estimate, and corrects the estimate. All inputs
    are computed from the rows at hand, for the attacker's pairs as for the victim's answers. The
    network learns how far to shrink, not where a coordinate lies, and so carries over to an encoder
    with other coordinates. The Wiener estimate keeps the part of each principal component that
    exceeds the noise: representations have few strong components, noise has all. The coordinates'
    means stay those of the answers: the shadow cannot tell the victim's means, and a constant in
    every coordinate changes nothing that can be learnt.

    Args:
        examples: pairs at the scale of the answers to be recovered, of several encoders.
        seed: of the network.

    Returns:
        float32 [K, D] -> float32 [K, D], for all answers of one encoder at once.
    """
    from sklearn.exceptions import ConvergenceWarning  # scikit-learn takes a second to import
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    variance = float(np.mean([pairs.spread(p.perturbed - p.clean) ** 2 for p in examples]))
    rng, inputs, errors = np.random.default_rng((seed, 8)), [], []
    for perturbed, clean in examples:
        context, unit = _context(perturbed, variance)
        number = min(_SAMPLES // len(examples), clean.size)
        rows = rng.integers(len(clean), size=number)
        columns = rng.integers(clean.shape[1], size=number)
        used, places = np.unique(rows, return_inverse=True)
        estimates, seen = context(perturbed[used])
        inputs.append(seen[places, columns])
        errors.append((clean[used] - clean.mean(axis=0) - estimates)[places, columns] / unit)
    network = make_pipeline(
        StandardScaler(),
        MLPRegressor(hidden_layer_sizes=(32, 32), batch_size=512, max_iter=15, random_state=seed),
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # 15 epochs are enough
        network.fit(np.concatenate(inputs), np.concatenate(errors))

    @threadpool_limits.wrap(1)
    def recover(answers: np.ndarray) -> np.ndarray:
        context, unit = _context(answers, variance)
        mean, blocks = answers.mean(axis=0, dtype=np.float64), []
        for start in range(0, len(answers), _BLOCK):
            estimates, inputs = context(answers[start : start + _BLOCK])
            corrections = network.predict(inputs.reshape(-1, inputs.shape[-1]))
            blocks.append(mean + estimates + unit * corrections.reshape(estimates.shape))
        return np.concatenate(blocks, dtype=np.float32, casting='same_kind')

    return recover


def _context(answers: np.ndarray, variance: float) -> tuple[Callable, float]:
    """Makes the function from rows of `answers` to the inputs of the network.

    Args:
        answers: float32 [K, D].
        variance: of the noise, to be shrunk away.

    Returns:
        (float [B, D] -> Wiener estimates of the deviations from the coordinates' means [B, D],
        inputs [B, D, 6]) and the unit, which is the spread of `answers`.
    """
    unit = pairs.spread(answers) or 1.0
    mean = answers.mean(axis=0, dtype=np.float64)
    deviation = answers.std(axis=0, dtype=np.float64)
    matrix = wiener(answers.astype(np.float64), variance)

    def context(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centered = rows - mean
        estimates = centered @ matrix
        numbers = (
            centered,
            estimates,
            centered.mean(axis=1, keepdims=True),
            centered.std(axis=1, keepdims=True),
            mean - mean.mean(),
            deviation,
        )
        return estimates, np.stack(np.broadcast_arrays(*numbers), axis=-1) / unit

    return context, unit
