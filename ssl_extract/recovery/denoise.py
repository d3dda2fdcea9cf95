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
from ssl_extract.recovery.base import Received, Recover, Shadow, given, register, replaced

_LEAST = 16  # answers
_SAMPLES = 40_000  # values that the network is trained on
_VARIANTS = 4  # of the attacker's encoder
_BLOCK = 512  # rows recovered at a time


@register('denoise', needs=('shadow',), same_width=True)
def denoise(known: str = '', candidates: Sequence[str] = ()) -> Recover:
    """Recovers clean representations with a network trained on the attacker's own encoder.

    As BESA does: the attacker sends its own encoder's representations through each candidate, tells
    by them which one the answers come from (`recognition.recognize`), trains a network from
    perturbed to clean representations of that candidate, and applies it to the answers. Answers
    recognized as undefended stay as they are. BESA's networks see whole representations; ours one
    value at a time, in its context (see `fit`), so that it does not matter that the coordinates of
    the two encoders have nothing to do with each other.

    Args:
        known: the defense, for an attacker who knows it: nothing has to be recognized.
        candidates: defenses to tell apart, `''` for none; `recognition.default_candidates` if
            empty.

    Raises:
        UserError: a defense is unknown or changes the answers' width; the attacker's encoder has
            another width than the answers; fewer than 16 answers came.
    """
    if isinstance(candidates, str) or not all(isinstance(spec, str) for spec in candidates):
        raise UserError(f"candidates={candidates!r}: write a list, such as ['', 'normalize']")
    for spec in (known, *candidates):
        pairs.check_width(spec)

    def recover(received: Received, shadow: Shadow) -> Received:
        answers = given(received, _LEAST, 'denoise')
        own = shadow.represent(received.inputs)
        if own.shape[1] != answers.shape[1]:
            raise UserError(
                f'attack.recover=denoise: the answers have {answers.shape[1]} coordinates and the '
                f"attacker's own encoder has {own.shape[1]}: give it an encoder of that width"
            )
        spec, unit = known, pairs.spread(answers)
        if unit == 0:  # nothing is left to recover from
            return received
        if not known:
            among = candidates or recognition.default_candidates(answers.shape[1], unit)
            spec, votes = recognition.recognize(answers, own, received.inputs, among, shadow.seed)
            logging.info('denoise: recognized %r with %.0f %% of votes', spec, 100 * votes)
        if not spec:
            return received
        factor = pairs.scale(spec, own, received.inputs, unit, shadow.seed)
        made = [
            pairs.perturb(spec, varied * factor, received.inputs, shadow.seed + number)
            for number, varied in enumerate(pairs.variants(own, _VARIANTS, shadow.seed))
        ]
        return replaced(received, fit(made, shadow.seed)(answers))

    return recover


@threadpool_limits.wrap(1)  # small products: threads only wait
def fit(made: Sequence[pairs.Pairs], seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A network from perturbed to clean values, the same one for every coordinate.

    It sees the value, the mean and deviation of its row, the mean and deviation of its coordinate
    over all rows, and the value's Wiener estimate, and corrects the latter. All of these are
    computed from the rows at hand, on the attacker's pairs as on the victim's answers: what is
    learnt is how far to shrink, not where a coordinate lies, and it carries over to an encoder with
    other coordinates. The Wiener estimate keeps the part of each principal component that exceeds
    the noise: representations have few strong components, noise has all. The coordinates' means
    stay those of the answers: where the victim's lie, the attacker's encoder cannot tell, and a
    constant in every coordinate changes nothing of what can be learnt.

    Args:
        made: pairs at the scale of the answers to be recovered, of several encoders.
        seed: of the network.

    Returns:
        float32 [K, D] -> float32 [K, D], for all answers of one encoder at once.
    """
    from sklearn.exceptions import ConvergenceWarning  # scikit-learn takes a second to import
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    variance = float(np.mean([pairs.spread(p.perturbed - p.clean) ** 2 for p in made]))
    rng, inputs, errors = np.random.default_rng((seed, 8)), [], []
    for perturbed, clean in made:
        context, unit = _context(perturbed, variance)
        number = min(_SAMPLES // len(made), clean.size)
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
        warnings.simplefilter('ignore', ConvergenceWarning)  # its 15 epochs are enough
        network.fit(np.concatenate(inputs), np.concatenate(errors))

    @threadpool_limits.wrap(1)
    def recover(answers: np.ndarray) -> np.ndarray:
        context, unit = _context(answers, variance)
        mean, found = answers.mean(axis=0, dtype=np.float64), []
        for start in range(0, len(answers), _BLOCK):
            estimates, inputs = context(answers[start : start + _BLOCK])
            corrections = network.predict(inputs.reshape(-1, inputs.shape[-1]))
            found.append(mean + estimates + unit * corrections.reshape(estimates.shape))
        return np.concatenate(found, dtype=np.float32, casting='same_kind')

    return recover


def _context(every: np.ndarray, variance: float) -> tuple[Callable, float]:
    """What the network is shown of rows among `every`, and the unit, the spread of `every`.

    Args:
        every: float32 [K, D].
        variance: of the noise, to be shrunk away.

    Returns:
        (float [B, D] -> Wiener estimates of the deviations from the coordinates' means [B, D],
        inputs [B, D, 6]) and the unit.
    """
    unit = max(pairs.spread(every), 1e-12)
    mean = every.mean(axis=0, dtype=np.float64)
    deviation = every.std(axis=0, dtype=np.float64)
    centered = every - mean
    values, vectors = np.linalg.eigh(centered.T @ centered / len(every))
    gains = np.maximum(values - variance, 0) / np.maximum(values, 1e-12 * unit**2)
    wiener = (vectors * gains) @ vectors.T

    def context(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centered = rows - mean
        estimates = centered @ wiener
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
