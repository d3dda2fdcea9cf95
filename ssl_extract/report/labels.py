"""What tells conditions apart, in as few words as will do."""

from collections.abc import Sequence

from ssl_extract.report.estimates import Estimate

ROLE_NAMES = {
    'victim': 'victim',
    'legitimate': 'legitimate user',
    'surrogate': 'surrogate',
    'scratch': 'from scratch',
    'random': 'untrained',
}
# Said where it varies at all; what belongs to an attack only where one attack has it both ways.
_ANYWHERE = ('strategy', 'data', 'adaptive', 'encoder', 'defense')
_WITHIN_AN_ATTACK = ('plan', 'endpoint', 'views')
_PHRASES = {'strategy': 'chosen by {}', 'data': 'queries from {}'}
_USUAL = ('data', 'encoder')  # unsaid where it is what most of them have
_UNSAID = ('', 'random')  # the strategy of whoever does not choose


def role_name(e: Estimate) -> str:
    """'surrogate', 'legitimate user (broad)'."""
    name = ROLE_NAMES.get(e.role, e.role)
    return f'{name} ({e.user})' if e.user else name


def series(e: Estimate) -> tuple:
    """The condition without its budget: what a line over budgets is drawn for."""
    return e._replace(budget=None).condition


def varies(found: Sequence[Estimate], field: str) -> bool:
    """Whether `field` tells two of them apart; that a role lacks what others have says nothing."""
    given = {(e.role, getattr(e, field)) for e in found}
    roles = {role for role, _ in given}
    return len(given) > len(roles) or len({value for _, value in given if value}) > 1


def column(found: Sequence[Estimate], field: str) -> list[str]:
    """The cells of a table's column for `field`: empty where it does not vary."""
    return [getattr(e, field) if varies(found, field) else '' for e in found]


def labels(found: Sequence[Estimate], always: tuple[str, ...] = ('loss',)) -> list[str]:
    """A label for each of the conditions of a figure; see `label`."""
    return [_with_user(e, label(e, found, always)) or role_name(e) for e in found]


def label(e: Estimate, among: Sequence[Estimate], always: tuple[str, ...] = ('loss',)) -> str:
    """What tells `e` from others of its role, whatever its budget; '' where nothing does.

    Args:
        e: one of `among`.
        among: the conditions that are shown side by side.
        always: fields that are said even where all have them in common.
    """
    alike = [other for other in among if (other.attack, other.loss) == (e.attack, e.loss)]
    used = {field for field in ('attack', *_ANYWHERE) if varies(among, field)}
    used |= {field for field in _WITHIN_AN_ATTACK if varies(alike, field)} | set(always)
    used -= {field for field in _USUAL if _is_usual(e, among, field)}
    parts = []
    for field in ('attack', 'loss', *_WITHIN_AN_ATTACK, *_ANYWHERE):
        value = getattr(e, field)
        if field in used and value not in (_UNSAID if field == 'strategy' else ('',)):
            parts.append(_PHRASES.get(field, '{}').format(value))
        elif field in used and field == 'defense':
            parts.append('no defense')
    return ', '.join(parts)


def _with_user(e: Estimate, words: str) -> str:
    return ', '.join(filter(None, (role_name(e), words))) if e.user else words


def _is_usual(e: Estimate, among: Sequence[Estimate], field: str) -> bool:
    """Whether most of `e`'s role have its value of `field`."""
    values = [getattr(other, field) for other in among if other.role == e.role]
    return values.count(getattr(e, field)) > len(values) / 2
