"""The terms of a report and their meanings.

The glossary of the docs has the same terms in the same words, and more.
"""

import re

TERMS = {
    '95 % interval': (
        'a range that holds the true value in 95 of 100 repetitions of the measurement.'
    ),
    'account': (
        "the oracle's state for one asker: the queries sent so far and what the defense remembers "
        'of them.'
    ),
    'adaptive attacker': 'an attacker that knows of the defense and acts against it.',
    'affine-aligned L2': (
        'the error of the best affine map from an encoder to the victim, as a share of the error '
        'of a constant: 0 is alike, 1 knows nothing of the victim.'
    ),
    'agreement': 'the share of test inputs that two encoders, each with its probe, classify alike.',
    'attack': (
        'a recipe of four choices: the query plan, the views that the surrogate sees, the loss, '
        'the heads.'
    ),
    'attacker': (
        'asks the oracle and trains a surrogate on the answers; sees nothing else of the victim.'
    ),
    'billed': 'granted queries; each is paid for.',
    'budget': 'the number of queries that an account may send.',
    'cosine': 'the mean cosine between the answers of two encoders to the same inputs; 1 is alike.',
    'defense': "a transformation of the oracle's answers, with a state for each account.",
    'encoder': 'a network from inputs `[B, ...]` to representations `[B, D]`.',
    'few-shot probe': 'a linear probe that is fitted on a few labeled inputs of each class.',
    'fidelity': 'how much alike a surrogate and the victim answer, apart from any accuracy.',
    'floor': (
        'the accuracy that an attacker or a user has without the victim: of an untrained encoder, '
        'from scratch, by chance.'
    ),
    'FLOP': 'floating-point operations: additions and multiplications of a training.',
    'from scratch': (
        "an encoder that was pretrained without a victim, on as many of the attacker's own inputs "
        'as the budget says; what stealing must beat.'
    ),
    'gap recovered': (
        'the share of the way from the untrained encoder to the victim that an encoder has gone.'
    ),
    'headroom': 'accuracy without a defense minus a floor: all that a defense could take.',
    'kNN': "a classifier by the nearest neighbors among a task's training representations.",
    'L2 distance': 'the mean distance between the answers of two encoders to the same inputs.',
    'legitimate user': (
        'asks the oracle in order to solve a task of its own, and trains no surrogate.'
    ),
    'linear CKA': (
        'how much alike two encoders arrange the same inputs, up to rotation and scale, from 0 '
        'to 1.'
    ),
    'linear probe': (
        'a linear classifier on frozen representations; its test accuracy measures an encoder.'
    ),
    'loss': 'the distance between what the surrogate says and what was answered.',
    'mark': "a watermark: a signal in the victim's answers that a surrogate inherits.",
    'neighbor overlap': 'the share of the nearest neighbors that an input has in both encoders.',
    'oracle': 'black-box access to a victim behind a defense and a budget.',
    'PCA': (
        'principal component analysis: the directions in which representations vary most become '
        'the axes.'
    ),
    'points': 'percentage points: 50 % and 45 % are 5 points apart.',
    'query': 'one input, or one view of it, sent to the oracle.',
    'query plan': (
        'what an attack asks of each input, and when: `once`, `views(m)`, `repeat(m)`, '
        '`near_duplicates(m)`, `online`.'
    ),
    'refused': (
        'a query that was sent and not answered, because the budget was spent or the defense '
        'refused; it is not billed.'
    ),
    'representation': "an encoder's output, `[B, D]`.",
    'run': 'one resolved config; its id is its hash.',
    'seed': 'the start of all random draws of a run; other seeds show how much chance matters.',
    'stage': 'a result that is computed once and kept under its address.',
    'surrogate': 'the stolen encoder.',
    'task': 'a labeled training set and test set that encoders are measured on.',
    'untrained': "the surrogate's network with its initial, random weights; the floor.",
    'victim': 'whatever answers behind the oracle: an encoder, any function, a service.',
    'view': 'one augmented version of an input.',
}


def used_terms(text: str) -> list[tuple[str, str]]:
    """Lists the terms that occur in a text, with their meanings.

    >>> used_terms('Queries billed.')[0]
    ('billed', 'granted queries; each is paid for.')
    """
    return [(name, meaning) for name, meaning in TERMS.items() if _pattern(name).search(text)]


def _pattern(name: str) -> re.Pattern:
    """Matches a term in the singular or plural; abbreviations only as they are written."""
    stem = f'{re.escape(name[:-1])}(?:y|ies)' if name.endswith('y') else f'{re.escape(name)}s?'
    upper = any(letter.isupper() for letter in name)
    return re.compile(rf'(?<!\w){stem}(?!\w)', 0 if upper else re.IGNORECASE)
