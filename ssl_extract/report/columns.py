"""The schema of results: the columns of `results.jsonl` and their titles.

Rows, tables, labels, estimates and `results.csv` read this schema. Besides these columns, a row has
one column for every config field that differs between runs, under the dotted name of the field; see
`ssl_extract.report.results.tidy`.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

ROLES = ('victim', 'legitimate', 'surrogate', 'scratch', 'random')  # the order in every table
ROLE_TITLES = {
    'victim': 'victim',
    'legitimate': 'legitimate user',
    'surrogate': 'surrogate',
    'scratch': 'from scratch',
    'random': 'untrained',
}
_ATTACKS = ('surrogate',)
_ASKS = ('legitimate', 'surrogate')
_BILLED = (*_ASKS, 'scratch', 'random')  # nothing, where there is no oracle


class Column(NamedTuple):
    """A column of `results.jsonl`.

    Attributes:
        name: the key in a row.
        title: the heading in a table.
        kind: 'condition' separates estimates; 'seed' is averaged over; 'measure' is one measured
            value with task, metric and interval; 'shown' is how a report shows the metric, which
            tells no rows apart; 'bill' is a cost of an encoder; 'note' is the origin of a row,
            which neither separates nor averages.
        roles: the roles that have a value.
        table: 'always' is in a table wherever an encoder has a value, 'varied' only where the
            column tells encoders apart, '' never.
        label: 'anywhere' is in a label wherever the column varies, 'attack' only where the column
            varies within one attack, '' where the label has another rule or none.
        phrase: a value in a label.
        fields: the config fields that the column expresses; they need no column of their own.
    """

    name: str
    title: str
    kind: Literal['condition', 'seed', 'measure', 'shown', 'bill', 'note']
    roles: tuple[str, ...] = ROLES
    table: Literal['', 'varied', 'always'] = ''
    label: Literal['', 'attack', 'anywhere'] = ''
    phrase: str = '{}'
    fields: tuple[str, ...] = ()


def _condition(name: str, title: str, *roles: str, **rest: Any) -> Column:
    return Column(name, title, 'condition', roles or ROLES, **rest)


COLUMNS = (
    _condition('role', 'Encoder', table='always'),
    _condition('attack', 'Attack', *_ATTACKS, table='always', fields=('attack.name',)),
    _condition('loss', 'Loss', *_ATTACKS, fields=('attack.loss',)),
    _condition('plan', 'Plan', *_ATTACKS, table='varied', label='attack', fields=('attack.plan',)),
    _condition(
        'strategy',
        'Chosen by',
        *('surrogate', 'scratch'),
        table='varied',
        label='anywhere',
        phrase='chosen by {}',
        fields=('attack.strategy',),
    ),
    _condition(
        'data',
        'Asked with',
        *('surrogate', 'scratch'),
        table='varied',
        label='anywhere',
        phrase='queries from {}',
        fields=('attack.data', 'data.name'),
    ),
    _condition('endpoint', 'Answers', *_ASKS, table='varied', label='attack'),
    _condition(
        'views',
        'Views',
        *_ATTACKS,
        table='varied',
        label='attack',
        fields=('attack.query_augmentation', 'attack.student_augmentation'),
    ),
    _condition(
        'adaptive',
        'Against it',
        *_ATTACKS,
        table='always',
        label='anywhere',
        fields=('attack.recover', 'attack.accounts'),
    ),
    Column('is_adaptive', 'Adaptive', 'note', _ATTACKS),
    _condition('user', 'User', 'legitimate', fields=('legitimate.users',)),
    Column('adaptation', 'Adapted by', 'note', ('legitimate',)),
    _condition(
        'encoder',
        'Architecture',
        table='varied',
        label='anywhere',
        fields=('attack.encoder', 'victim.encoder'),
    ),
    _condition('defense', 'Defense', *_ASKS, table='always', label='anywhere', fields=('defense',)),
    _condition(  # not of a user, whose queries follow from the seed: a class has so many images
        'budget',
        'Budget',
        *('surrogate', 'scratch'),
        table='always',
        fields=('attack.budget',),
    ),
    Column('seed', 'Seed', 'seed', fields=('seed',)),
    Column('task', 'Task', 'measure'),
    Column('metric', 'Metric', 'measure'),
    Column('metric_title', 'Metric in words', 'shown'),
    Column('unit', 'Unit', 'shown'),  # 'share': in [0, 1], shown in per cent
    Column('better', 'Better values', 'shown'),  # 'larger' or 'smaller'
    Column('section', 'Section', 'shown'),  # the heading in a report
    Column('value', 'Value', 'measure'),
    Column('ci_low', 'Interval from', 'measure'),
    Column('ci_high', 'Interval to', 'measure'),
    Column('n', 'Test inputs', 'measure'),
    Column('queries_billed', 'Billed', 'bill', _BILLED),
    Column('queries_unique', 'Unique', 'bill', _BILLED),
    Column('queries_repeated', 'Repeated', 'bill', _BILLED),
    Column('queries_refused', 'Refused', 'bill', _BILLED),
    Column('dollars', 'Dollars for queries', 'bill', _ASKS),
    Column('flops', 'Training, FLOP', 'bill', ('victim', 'surrogate', 'scratch')),
    Column('seconds', 'Training, s', 'bill', ('victim', 'legitimate', 'surrogate', 'scratch')),
    Column('stage', 'Stage', 'note'),
    Column('run', 'Run', 'note'),
)
NAMES = tuple(column.name for column in COLUMNS)
TITLES = {column.name: column.title for column in COLUMNS}
QUERIES = tuple(name for name in NAMES if name.startswith('queries_'))
CONDITIONS = tuple(column.name for column in COLUMNS if column.kind == 'condition')
PRESENTATION = tuple(column.name for column in COLUMNS if column.kind == 'shown')
# The fields whose values are seeds: the attacker's, and the victim's where it differs between runs.
SEEDS = ('seed', 'victim.seed')
# The parts of a config that every result depends on, the victim's and the baselines' too; results
# that differ in one of them are never set against each other.
SETTING = ('data', 'victim', 'evaluation')


def conditions(role: str) -> tuple[str, ...]:
    """Names the columns that tell two conditions of a role apart.

    Args:
        role: one of ROLES; any other role has all of them.

    >>> conditions('random')
    ('role', 'encoder')
    """
    return tuple(
        column.name
        for column in COLUMNS
        if column.kind == 'condition' and (role in column.roles or role not in ROLES)
    )


def shown(table: str) -> tuple[Column, ...]:
    """Returns the columns that a table shows 'always' or only where 'varied'.

    >>> [column.title for column in shown('varied')][:2]
    ['Plan', 'Chosen by']
    """
    return tuple(column for column in COLUMNS if column.table == table)


def said(label: str) -> tuple[str, ...]:
    """Names the columns that a label says 'anywhere' or only within an 'attack'.

    >>> said('attack')
    ('plan', 'endpoint', 'views')
    """
    return tuple(column.name for column in COLUMNS if column.label == label)


def differing_fields(row: dict[str, Any]) -> tuple[str, ...]:
    """Names the columns of a row that are config fields, in a fixed order.

    >>> differing_fields({'role': 'victim', 'victim.epochs': 5})
    ('victim.epochs',)
    """
    return tuple(sorted(name for name in row if name not in TITLES))


def split_followers(
    rows: Sequence[dict[str, Any]],
) -> tuple[list[dict[str, Any]], dict[str, dict[int, Any]]]:
    """Takes out the config fields that follow from the budget, as epochs that shrink as it grows.

    They tell no two conditions apart that their budgets do not.

    >>> rows = [{'budget': 500, 'attack.epochs': 40}, {'budget': 1000, 'attack.epochs': 25}]
    >>> split_followers(rows)
    ([{'budget': 500}, {'budget': 1000}], {'attack.epochs': {500: 40, 1000: 25}})

    Args:
        rows: tidy rows.

    Returns:
        The rows without such fields, and field -> budget -> value. Fields of `SETTING` stay.
    """
    followers = {}
    for name in sorted({name for row in rows for name in differing_fields(row)} - {*SEEDS}):
        values: dict[int, list[Any]] = {}
        for row in rows:
            if row.get('budget') is not None and row.get(name) is not None:
                values.setdefault(row['budget'], []).append(row[name])
        one_each = all(value == found[0] for found in values.values() for value in found)
        if len(values) > 1 and one_each and name.split('.')[0] not in SETTING:
            followers[name] = {budget: values[budget][0] for budget in sorted(values)}
    kept = [{name: row[name] for name in row if name not in followers} for row in rows]
    return kept, followers
