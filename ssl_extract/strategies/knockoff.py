"""The adaptive policy of Knockoff Nets: a bandit over classes."""

import numpy as np
from scipy.special import log_softmax, softmax

from ssl_extract.checks import check_number, check_whole
from ssl_extract.errors import UserError
from ssl_extract.strategies.base import Seen, State, Strategy, left, register

_TAG = 11  # of its random draws
_TOLERANCE = 1e-3  # of a sum of float32 probabilities, or of some rounded to four decimals
_CONSTANT = 1e-6  # a reward that varies by less carries no signal


@register('knockoff', needs=('labels', 'probabilities'))
def knockoff(rounds: int = 8, learning_rate: float = 1.0, window: int = 100) -> Strategy:
    """Learns which classes of its own pool are worth asking (Orekondy et al., CVPR 2019, 4.1.2).

    The attacker's labels z need have nothing to do with the victim's classes k. Query t draws a
    class from the policy `pi_t(z) = softmax(H_t)(z)`, then an image of that class at random, and
    its reward r_t moves the preferences H by the gradient bandit algorithm: `H(z_t) += a (r_t -
    rbar_t)(1 - pi_t(z_t))`, `H(z) -= a (r_t - rbar_t) pi_t(z)` for the others, `a = learning_rate /
    N(z_t)` with N the number of times the class was drawn (the paper's a is 1/N). The reward is a
    sum of three, each of them rescaled to [0, 1] and compared with its mean over the `window`
    queries before:

    - certainty, the margin of the answer y_t: its largest minus its second largest probability;
    - diversity, `sum_k max(0, y_tk - ybar_k)`, ybar the mean of the `window` answers before;
    - loss, the cross-entropy of the surrogate's prediction against y_t.

    Differences from the paper. The policy is updated query by query, in the order asked, but only
    when the round's answers are in; the surrogate learns only between rounds. A prediction is that
    of the surrogate at the time of asking, which has not seen the answer; the first round has none,
    and no loss among its rewards. The paper does not say how it rescales: here by the smallest and
    the largest value among the query and those it is compared with, which are of the same round,
    since another round has another surrogate. The classes have no hierarchy. No image is asked
    twice; a class all of whose images were asked leaves the policy.

    Args:
        rounds: times it chooses.
        learning_rate: multiplies the step 1/N(z).
        window: queries that a reward and an answer are compared with, the paper's Delta.

    Raises:
        UserError: an argument has a wrong value; and, when it chooses, the pool has no labels, or
            the answers are no probabilities.
    """
    check_whole('rounds', rounds, 2)
    check_number('learning_rate', learning_rate, above=0)
    check_whole('window', window, 1)

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
    """Certainty, diversity and loss of the queries from `start` on, not yet rescaled.

    Args:
        answers: [Q, K], probabilities, in the order asked.
        start: the first query that is rewarded.
        window: answers before a query that make its mean; before the first one the mean is 0.
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
    found = [top[:, 1] - top[:, 0], np.maximum(0, new - mean).sum(axis=1)]
    if predictions is not None:
        logits = np.asarray(predictions, np.float64)
        found.append(-(new * log_softmax(logits, axis=1)).sum(axis=1))
    return np.stack(found, axis=1)


def learn(
    preferences: np.ndarray,
    draws: np.ndarray,
    actions: np.ndarray,
    gained: np.ndarray,
    learning_rate: float,
    window: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Updates the bandit by one query after the other; the first has nothing to be compared with.

    Args:
        preferences: [C], H of each class of the pool.
        draws: int [C], how often each was drawn.
        actions: int [n], the class of each query.
        gained: [n, M], its rewards, which are rescaled here, one by one, and summed.
        learning_rate: multiplies the step 1/N(z).
        window: queries before it that a query is compared with.

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
    """Draws `count` of the images whose classes are `actions [L]`, in their order within a class.

    The policy is that of the classes that have an image left.
    """
    queues = [np.flatnonzero(actions == c)[::-1].tolist() for c in range(len(preferences))]
    chosen = np.empty(count, np.intp)
    total = None
    for i, uniform in enumerate(rng.random(count)):
        if total is None:  # at first, and when a class has run out
            some = [len(queue) > 0 for queue in queues]
            total = np.cumsum(softmax(np.where(some, preferences, -np.inf)))
            total /= total[-1]
        queue = queues[np.searchsorted(total, uniform, side='right')]
        chosen[i] = queue.pop()
        total = total if queue else None
    return chosen


def _predictions(state: State, asked: np.ndarray) -> np.ndarray | None:
    """What the surrogate predicted of `asked` when they were chosen, if there was one."""
    if 'predictions' not in state:
        return None
    order = np.argsort(state['chosen'])
    return state['predictions'][order[np.searchsorted(state['chosen'], asked, sorter=order)]]


def _check_answers(answers: np.ndarray) -> None:
    """Stops answers that are not probabilities of at least two classes."""
    sound = answers.shape[1] > 1 and (answers >= -_TOLERANCE).all()
    if not (sound and (np.abs(answers.sum(axis=1) - 1) <= _TOLERANCE).all()):
        raise UserError(
            'attack.strategy=knockoff rewards probabilities, and these answers do not sum to 1 '
            'or are negative: attack `posteriors` or `labels`, or choose another strategy'
        )
