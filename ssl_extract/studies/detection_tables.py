"""The tables of the detection study, as Markdown."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssl_extract.evaluation import roc
from ssl_extract.evaluation.intervals import Measurement

SPACES = {'answer': 'representation', 'projection': 'projection'}
PAPER = """| L2, head outputs (T13) | L2, representations (T14) | cosine, head outputs (T15) |
|---|---|---|
| 12: 4.7 ± 1.7 / 53.1 ± 2.8 | 17: 7.7 ± 2.3 / 49.0 ± 2.5 | 0.45: 31.4 ± 2.7 / 9.4 ± 1.8 |
| 13: 12.3 ± 3.1 / 35.1 ± 3.1 | 18: 16.2 ± 2.7 / 39.5 ± 2.5 | 0.50: 15.5 ± 2.6 / 21.3 ± 2.3 |
| 14: 27.7 ± 3.4 / 19.3 ± 2.2 | 19: 28.2 ± 2.6 / 26.4 ± 2.2 | 0.55: 7.0 ± 1.7 / 34.1 ± 2.1 |
"""


class Point(NamedTuple):
    """The guard's rates at one threshold."""

    metric: str
    space: str
    history: int
    threshold: float
    fpr: Measurement
    fnr: Measurement


class Account(NamedTuple):
    """A kind of account: `ask(rng) -> float32[Q, D]` draws queries and returns the answers."""

    name: str
    attacker: bool
    ask: Callable[[np.random.Generator], np.ndarray]


def sweep_table(points: list[Point]) -> str:
    """Writes the points as a Markdown table."""
    lines = ['| metric | of | history | threshold | FPR % | FNR % | n |', '|---' * 7 + '|']
    lines += [
        f'| {p.metric} | {SPACES[p.space]} | {p.history} | {p.threshold:g} | {_percent(p.fpr)} | '
        f'{_percent(p.fnr)} | {p.fpr.n} / {p.fnr.n} |'
        for p in points
    ]
    return '\n'.join(lines) + '\n'


def accounts_tables(scores: dict[str, dict[str, np.ndarray]], types: list[Account]) -> str:
    """Writes mean scores and areas under the ROC as Markdown tables."""
    users = [kind.name for kind in types if not kind.attacker]
    attackers = [kind.name for kind in types if kind.attacker]
    lines = [f'| account | n | {" | ".join(scores)} |', '|---' * (2 + len(scores)) + '|']
    for kind in types:
        each = [of[kind.name] for of in scores.values()]
        words = [f'{x.mean():.3f} ({x.min():.3f} to {x.max():.3f})' for x in each]
        role = 'attacker' if kind.attacker else 'user'
        lines.append(f'| {role}, {kind.name} | {len(each[0])} | {" | ".join(words)} |')
    for score, of in scores.items():
        header = [f'AUC of {score}', *users, 'all users', 'caught at FPR 10 %']
        lines += ['', f'| {" | ".join(header)} |', '|---' * len(header) + '|']
        for attacker in attackers:
            groups = [*([user] for user in users), users]
            curves = [
                roc.roc(of[attacker], np.concatenate([of[u] for u in group])) for group in groups
            ]
            words = [f'{c.auc.value:.2f} [{c.auc.ci_low:.2f}, {c.auc.ci_high:.2f}]' for c in curves]
            limit = np.quantile(np.concatenate([of[u] for u in users]), 0.9, method='higher')
            caught = f'{100 * roc.power(curves[-1], 0.1):.0f} %, above {limit:.3f}'
            lines.append(f'| {" | ".join([attacker, *words, caught])} |')
    return '\n'.join(lines) + '\n'


def _percent(rate: Measurement) -> str:
    return f'{100 * rate.value:.1f} [{100 * rate.ci_low:.1f}, {100 * rate.ci_high:.1f}]'
