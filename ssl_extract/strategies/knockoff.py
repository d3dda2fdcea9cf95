"""The adaptive policy of Knockoff Nets: a bandit over classes."""

import numpy as np
from scipy.special import log_softmax, softmax

from ssl_extract.errors import UserError
from ssl_extract.ranges import Count, Positive
from ssl_extract.strategies.base import Rounds, Seen, State, Strategy, left, register

_TAG = 11  # of the random draws
_TOLERANCE = 1e-3  # of a sum of float32 probabilities, rounded to four decimals or not
_CONSTANT = 1e-6  # a reward that varies less carries no signal


@register('knockoff', needs=('labels', 'probabilities'))
def knockoff(rounds: Rounds = 8, learning_rate: Positive = 1.0, window: Count = 100) -> Strategy:
    """Learns the classes of the pool that are worth asking (Orekondy et al., CVPR 2019, 4.1.2).

    The attacker's labels z need not correspond to the victim's classes k. Query t draws a class
    from the policy `pi_t(z) = softmax(H_t)(z)`, then an input of the class at random. The reward
    r_t moves the preferences H by the gradient bandit algorithm: `H(z_t) += a (r_t - rbar_t)(1 -
    pi_t(z_t))`, `H(z) -= a (r_t - rbar_t) pi_t(z)` for the other classes, `a = learning_rate /
    N(z_t)` with N the number of times the class was drawn (the paper's a is 1/N). The reward is a
    sum of three parts, each rescaled to [0, 1] and compared with the mean of the part over the
    `window` queries before:

    - certainty, the margin of the answer y_t: the largest minus the second largest probability;
    - diversity, `sum_k max(0, y_tk - ybar_k)`, ybar the mean of the `window` answers before;
    - loss, the cross-entropy of the surrogate's prediction against y_t.

    Differences from the paper. The policy is updated query by query, in order, but after all
    answers of the round; the surrogate learns between rounds. A prediction is that of the surrogate
    at the time of the query, which has not seen the answer; the first round has no predictions, and
    no loss in the rewards. The paper does not say how rewards are rescaled. Here the smallest and
    the largest value set the scale, among the query and the queries of the same round that it is
    compared with, since another round has another surrogate. The classes have no hierarchy. No
    input is asked twice; a class whose inputs were all asked leaves the policy.

    >>> knockoff(rounds=3).rounds
    3

    Args:
        rounds: number of choices.
        learning_rate: multiplies the step 1/N(z).
        window: number of queries that a reward and an answer are compared with, the paper's Delta.

    Raises:
        UserError: an argument has a wrong value; and, in `choose`, the pool has no labels, or the
            answers are no probabilities.
    """

    def choose(seen: Seen, count: int, state: State):
        if seen.labels is None:
            raise UserError(
                'attack.strategy=knockoff chooses among the classes of the pool, which has no '
                'labels: name a labeled set in attack.data, or choose another strategy'
            )
        classes, actions = np.unique(seen.labels, return_inverse=True)
        preferences = state.get('preferences', np.zeros(len(classes)))
        draws = state.get('draws', np.zeros(len(classes), np.int64))
        paid = int(state.get('paid', 0))
        if len(seen.asked) > paid:
            _check_answers(seen.answers)
            gained = rewards(seen.answers, paid, window, _predictions(state, seen.asked[paid:]))
            preferences, draws = learn(
                preferences, draws, actions[seen.asked[paid:]], gained, learning_rate, window
            )
        candidates = left(seen, count)
        rng = np.random.default_rng((seen.seed, _TAG, seen.round))
        chosen = candidates[_draw(preferences, actions[candidates], count, rng)]
        state = {'preferences': preferences, 'draws': draws, 'paid': np.array(len(seen.asked))}
        if seen.predict is not None:
            state |= {'chosen': chosen, 'predictions': seen.predict(seen.inputs[chosen])}
        return chosen, state

    return Strategy(rounds, choose)


def rewards(
    answers: np.ndarray, start: int, window: int, predictions: np.ndarray | None
) -> np.ndarray:
    """Computes certainty, diversity and loss of the queries from `start` on, before rescaling.

    Args:
        answers: [Q, K], probabilities, in the order of the queries.
        start: the first query that is rewarded.
        window: number of earlier answers in the mean; the mean before the first answer is 0.
        predictions: [Q - start, K], logits of the surrogate; None leaves the loss out.

    Returns:
        float64 [Q - start, 3], or [Q - start, 2] without predictions.
    """
    first = max(0, start - window)
    recent = np.asarray(answers[first:], np.float64)
    sums = np.concatenate([np.zeros((1, recent.shape[1])), np.cumsum(recent, axis=0)])
    stop = np.arange(start - first, len(recent))
    begin = np.maximum(0, stop - window)
    mean = (sums[stop] - sums[begin]) / np.maximum(1, stop - begin)[:, None]
    new = recent[start - first :]
    top = np.partition(new, -2, axis=1)[:, -2:]
    parts = [top[:, 1] - top[:, 0], np.maximum(0, new - mean).sum(axis=1)]
    if predictions is not None:
        logits = np.asarray(predictions, np.float64)
        parts.append(-(new * log_softmax(logits, axis=1)).sum(axis=1))
    return np.stack(parts, axis=1)


def learn(
    preferences: np.ndarray,
    draws: np.ndarray,
    actions: np.ndarray,
    gained: np.ndarray,
    learning_rate: float,
    window: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Updates the bandit query by query; the first query has no comparison and moves nothing.

    Args:
        preferences: [C], H of each class of the pool.
        draws: int [C], the number of draws of each class.
        actions: int [n], the class of each query.
        gained: [n, M], the M parts of each query's reward, before rescaling.
        learning_rate: multiplies the step 1/N(z).
        window: number of earlier queries that a query is compared with.

    Returns:
        preferences float64 [C], draws int64 [C].
    """
    preferences, draws = preferences.astype(np.float64), draws.astype(np.int64)
    for t, action in enumerate(actions):
        draws[action] += 1
        compared = gained[max(0, t - window) : t + 1]
        span = np.ptp(compared, axis=0)
        if t == 0 or not (span > _CONSTANT).any():
            continue
        excess = gained[t] - compared[:-1].mean(axis=0)
        advantage = np.sum(excess[span > _CONSTANT] / span[span > _CONSTANT])
        step = learning_rate / draws[action] * advantage
        preferences -= step * softmax(preferences)
        preferences[action] += step
    return preferences, draws


def _draw(
    preferences: np.ndarray, actions: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws `count` of the inputs with classes `actions [L]`; within a class, in order.

    The policy covers the classes that have an input left.
    """
    queues = [np.flatnonzero(actions == c)[::-1].tolist() for c in range(len(preferences))]
    chosen = np.empty(count, np.intp)
    total = None
    for i, uniform in enumerate(rng.random(count)):
        if total is None:  # at first, and when a class has run out
            available = [len(queue) > 0 for queue in queues]
            total = np.cumsum(softmax(np.where(available, preferences, -np.inf)))
            total /= total[-1]
        queue = queues[np.searchsorted(total, uniform, side='right')]
        chosen[i] = queue.pop()
        total = total if queue else None
    return chosen


def _predictions(state: State, queries: np.ndarray) -> np.ndarray | None:
    """Returns the surrogate's predictions for `queries` at the choice, or None."""
    if 'predictions' not in state:
        return None
    order = np.argsort(state['chosen'])
    return state['predictions'][order[np.searchsorted(state['chosen'], queries, sorter=order)]]


def _check_answers(answers: np.ndarray) -> None:
    """Checks that answers are probabilities of at least two classes."""
    sound = answers.shape[1] > 1 and (answers >= -_TOLERANCE).all()
    if not (sound and (np.abs(answers.sum(axis=1) - 1) <= _TOLERANCE).all()):
        raise UserError(
            'attack.strategy=knockoff rewards probabilities, and these answers do not sum to 1 '
            'or are negative: attack `posteriors` or `labels`, or choose another strategy'
        )
