"""Short labels of experimental conditions."""

from collections.abc import Sequence

from ssl_extract.report import columns
from ssl_extract.report.estimates import Estimate

# Columns in a label where they vary at all, and where they vary within one attack.
_ANYWHERE, _WITHIN_AN_ATTACK = columns.said('anywhere'), columns.said('attack')
_PHRASES = {column.name: column.phrase for column in columns.COLUMNS}
_USUAL = ('data', 'encoder')  # left out of labels with the most frequent value
_UNSAID = ('', 'random')  # the strategy of an attacker that does not choose


def role_name(e: Estimate) -> str:
    """Names a role: 'surrogate', 'legitimate user (broad)'."""
    name = columns.ROLE_TITLES.get(e.role, e.role)
    return f'{name} ({e.user})' if e.user else name


def series(e: Estimate) -> tuple:
    """Returns the condition without the budget, for a line over budgets."""
    return e._replace(budget=None).condition


def varies(estimates: Sequence[Estimate], name: str) -> bool:
    """Returns whether a column or config field tells two of the estimates apart.

    A value that one role has and another lacks does not count.
    """
    pairs = {(e.role, e.get(name)) for e in estimates}
    roles = {role for role, _ in pairs}
    values = {value for _, value in pairs if value not in ('', None)}
    return len(pairs) > len(roles) or len(values) > 1


def column(estimates: Sequence[Estimate], name: str) -> list[str]:
    """Returns the cells of a table's column: empty where the column does not vary."""
    return [str(e.get(name)) if varies(estimates, name) else '' for e in estimates]


def varied_fields(estimates: Sequence[Estimate]) -> list[str]:
    """Names the config fields that tell two of the estimates apart, in a fixed order."""
    names = sorted({name for e in estimates for name, _ in e.fields})
    return [name for name in names if varies(estimates, name)]


def fields_text(fields: Sequence[tuple[str, object]]) -> str:
    """Writes config fields in a few words.

    >>> fields_text((('attack.epochs', 5), ('data.dir', '')))
    "attack.epochs=5, data.dir=''"
    """
    return ', '.join(f'{name}={value}' if value != '' else f"{name}=''" for name, value in fields)


def labels(estimates: Sequence[Estimate], always: tuple[str, ...] = ('loss',)) -> list[str]:
    """Returns a label for each of the conditions of a figure; see `label`."""
    return [_with_user(e, label(e, estimates, always)) or role_name(e) for e in estimates]


def label(e: Estimate, among: Sequence[Estimate], always: tuple[str, ...] = ('loss',)) -> str:
    """Writes the differences of `e` from others of the same role, budgets aside; '' without any.

    Args:
        e: one of `among`.
        among: the conditions that are shown side by side.
        always: columns in every label, even where all estimates agree.
    """
    alike = [other for other in among if (other.attack, other.loss) == (e.attack, e.loss)]
    used = {name for name in ('attack', *_ANYWHERE) if varies(among, name)}
    used |= {name for name in _WITHIN_AN_ATTACK if varies(alike, name)} | set(always)
    used -= {name for name in _USUAL if _is_usual(e, among, name)}
    telling, parts = _telling_fields(among), []
    for name in ('attack', 'loss', *_WITHIN_AN_ATTACK, *_ANYWHERE):
        value = e.get(name)
        if name == 'defense':
            parts.append(fields_text([f for f in e.fields if f[0] in telling]))
        if name in used and value not in (_UNSAID if name == 'strategy' else ('',)):
            parts.append(_PHRASES[name].format(value))
        elif name in used and name == 'defense':
            parts.append('no defense')
    return ', '.join(filter(None, parts))


def _telling_fields(estimates: Sequence[Estimate]) -> set[str]:
    """Names the config fields without which two of the estimates would be called the same."""
    alike: dict[tuple, list[Estimate]] = {}
    for e in estimates:
        alike.setdefault(e._replace(fields=()).condition, []).append(e)
    return {name for same in alike.values() for name in varied_fields(same)}


def _with_user(e: Estimate, words: str) -> str:
    return ', '.join(filter(None, (role_name(e), words))) if e.user else words


def _is_usual(e: Estimate, among: Sequence[Estimate], name: str) -> bool:
    """Returns whether most estimates of the same role have the same value of the column."""
    values = [other.get(name) for other in among if other.role == e.role]
    return values.count(e.get(name)) > len(values) / 2
