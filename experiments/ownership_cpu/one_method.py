"""The same statistics, judged by independent encoders of one method.

Encoders of another method are less like the victim than those of its own. A null of both has two
modes, and Student's p-values over it are too large.
"""

from collections.abc import Mapping, Sequence

import scipy.stats

from ssl_extract.ownership import verdict
from ssl_extract.ownership.known_truth import Truth
from ssl_extract.ownership.scoring import INDEPENDENT, SUSPECT, Score
from ssl_extract.report.significance import LEVEL

HEADER = (
    *('test', 'null', 'judged', 'accused', 'low', 'high', 'uniform'),
    *('others', 'accused_others', 'stolen', 'found', 'found_low', 'found_high'),
)


def table(
    scores: Sequence[Score], truths: Mapping[str, Truth], method: str
) -> list[list[str | float]]:
    """Judges by all independents, and by those of one method.

    Args:
        scores: of suspects and independents.
        truths: by the names of suspects.
        method: the beginning of the names of independents of the method.

    Returns:
        The header, then two rows for each test whose null are independents: the share of the null
        with a p-value below 5 %, each judged by the rest, and the Kolmogorov-Smirnov test that
        these p-values are uniform; how many independents outside of the null are accused; and the
        share of stolen suspects that are found.
    """
    rows: list[list[str | float]] = [list(HEADER)]
    for test in dict.fromkeys(score.test for score in scores):
        own = [s for s in scores if s.test == test]
        judged = [s for s in own if s.role == INDEPENDENT and s.p_value is not None]
        if not any('independents' in s.null for s in judged):
            continue
        stolen = [s.statistic for s in own if s.role == SUSPECT and truths[s.encoder].stolen]
        for name, null in (('all', ''), (method, method)):
            inside, outside = (
                [s.statistic for s in judged if s.encoder.startswith(null) == within]
                for within in (True, False)
            )
            if len(inside) > verdict.LEAST_INDEPENDENTS:
                rows.append([test, name, *_judge(inside, outside, stolen)])
    return rows


def _judge(
    inside: list[float], outside: list[float], stolen: list[float | None]
) -> list[str | float]:
    apart = [
        verdict.p_among(statistic, inside[:place] + inside[place + 1 :])
        for place, statistic in enumerate(inside)
    ]
    accused = verdict.rate(sum(p < LEVEL for p in apart), len(apart))
    uniform = float(scipy.stats.kstest(apart, 'uniform').pvalue)
    others = sum(verdict.p_among(statistic, inside) < LEVEL for statistic in outside)
    hits = sum(s is not None and verdict.p_among(s, inside) < LEVEL for s in stolen)
    found = verdict.rate(hits, len(stolen))
    return [len(apart), *accused[:3], uniform, len(outside), others, found.n, *found[:3]]
