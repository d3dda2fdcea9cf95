"""The same statistics, judged by the independent encoders of one method.

Encoders of another method are less like the victim than those of its own. A null of both has two
modes, and Student's p-values over it are too large.
"""

from collections.abc import Mapping, Sequence

from ssl_extract.ownership import verdict
from ssl_extract.ownership.known_truth import Truth
from ssl_extract.ownership.scoring import INDEPENDENT, SUSPECT, Score


def rejudge(
    scores: Sequence[Score], truths: Mapping[str, Truth], method: str
) -> tuple[list[Score], dict[str, Truth]]:
    """Judges suspects by the independents of one method, and those by each other.

    Independents of other methods become suspects that are not stolen. Tests with another null than
    independents, or with too few of the method, are left out.

    Args:
        scores: of suspects and independents.
        truths: by the names of suspects.
        method: the beginning of the names of the method's independents.

    Returns:
        The scores with their new p-values, and what is known of the suspects.
    """
    judged, known = [], dict(truths)
    for test in dict.fromkeys(score.test for score in scores):
        own = [s for s in scores if s.test == test]
        null = {
            s.encoder: s.statistic
            for s in own
            if s.role == INDEPENDENT and s.p_value is not None and s.null.startswith('independents')
        }
        inside = {name: null[name] for name in null if name.startswith(method)}
        if len(inside) <= verdict.LEAST_INDEPENDENTS:
            continue
        outside = [s._replace(role=SUSPECT) for s in own if s.encoder in null.keys() - inside]
        known |= {s.encoder: Truth(False, 'of another method') for s in outside}
        suspects = [s for s in own if s.role == SUSPECT] + outside
        judged += _judge(suspects, inside)
        for score in own:
            if score.encoder in inside:
                rest = {name: inside[name] for name in inside if name != score.encoder}
                judged += _judge([score], rest)
    return judged, known


def _judge(scores: list[Score], null: Mapping[str, float]) -> list[Score]:
    measured = [s for s in scores if s.p_value is not None]
    statistics = [s.statistic for s in measured]
    p_values = [verdict.p_among(statistic, [*null.values()]) for statistic in statistics]
    verdicts = verdict.judge(statistics, p_values)
    rejudged = {
        s.encoder: s._replace(
            p_value=v.p_value,
            corrected=v.corrected if s.role == SUSPECT else None,
            verdict='stolen' if v.stolen else 'not shown',
            null=f'independents, m={len(null)}',
        )
        for s, v in zip(measured, verdicts, strict=True)
    }
    return [rejudged.get(s.encoder, s) for s in scores]
