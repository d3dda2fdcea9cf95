"""The metrics of a report, as the rows describe them.

The title, the unit, the direction and the section of a metric are columns of its rows, declared
where the metric is registered; see `ssl_extract.evaluation.METRICS`.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from ssl_extract.report import columns

STOLEN = 'What was stolen'
CHANGED = 'What a defense changed'
NOTICED = 'What a defense noticed'
OTHER = 'Other measures'
_ARROWS = {'larger': ' ↑', 'smaller': ' ↓'}


class Shown(NamedTuple):
    """The presentation of a metric.

    Attributes:
        title: the metric in a few words.
        is_share: whether the values are shares in [0, 1], which a report shows in per cent.
        better: 'larger', 'smaller', or '' where neither is better.
        section: the heading of the report under which the metric stands.
    """

    title: str
    is_share: bool
    better: str
    section: str

    @property
    def heading(self) -> str:
        """Returns the heading of a column: title, unit, and an arrow to the better values."""
        return self.title + ', %' * self.is_share + _ARROWS.get(self.better, '')


def shown(rows: Iterable[dict[str, Any]]) -> dict[str, Shown]:
    """Returns the presentation of every metric, in the order of the rows.

    Rows that say nothing of a metric, as those of old runs, follow the rows that do. A metric is a
    share where all rows that name a unit say so.

    >>> rows = [{'metric': 'my_error', 'unit': 'share', 'better': 'smaller'}]
    >>> shown(rows)['my_error'].heading
    'My error, % ↓'
    """
    declared: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        values = declared.setdefault(row['metric'], {name: [] for name in columns.PRESENTATION})
        for name in columns.PRESENTATION:
            if row.get(name) is not None:
                values[name].append(row[name])
    return {metric: _shown(metric, **values) for metric, values in declared.items()}


def _shown(
    metric: str, metric_title: list[str], unit: list[str], better: list[str], section: list[str]
) -> Shown:
    words = metric.replace('_', ' ')
    return Shown(
        title=next(filter(None, metric_title), words[:1].upper() + words[1:]),
        is_share={*unit} == {'share'},
        better=next(filter(None, better), ''),
        section=next(filter(None, section), OTHER),
    )
