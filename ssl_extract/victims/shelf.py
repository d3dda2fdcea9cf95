"""The table of the victims in a folder, as Markdown."""

from typing import Any

from etils import epath

from ssl_extract.encoders import num_params
from ssl_extract.runtime import files
from ssl_extract.victims import stored
from ssl_extract.victims.stored import Stored

_START = '| victim |'  # the beginning of the table in README.md
_HEADER = (
    *('victim', 'network', 'parameters', 'file', 'trained on', 'by', 'epochs', 'seed', 'minutes'),
    *('labels', 'linear probe', 'kNN', 'sha256'),
)


def write_table(folder: epath.PathLike) -> None:
    """Writes the table anew, in README.md of the folder; the text before the table stays.

    Args:
        folder: of the victims.
    """
    path = epath.Path(folder) / 'README.md'
    text = path.read_text() if path.exists() else ''
    files.write_text(path, text.partition(_START)[0] + table(folder))


def table(folder: epath.PathLike) -> str:
    """Describes the victims of a folder: a row for each, and the commands that trained them.

    Args:
        folder: of the victims.
    """
    paths = files.find(folder, f'*{stored.SUFFIX}')
    victims = {path.stem: stored.read(str(path)) for path in paths}
    rows = [_HEADER, ('---',) * len(_HEADER)]
    rows += [_row(path.stem, path.stat().length, victims[path.stem]) for path in paths]
    lines = ['| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in rows]
    commands = [f'# {name}\n{victim.about["command"]}' for name, victim in victims.items()]
    return '\n'.join([*lines, '', 'Trained by:', '', '```bash', *commands, '```', ''])


def _row(name: str, num_bytes: int, victim: Stored) -> tuple[str, ...]:
    about, encoder = victim.about, victim.encoder
    trained, moved = about['trained'], about['moved']
    return (
        f'`{name}`',
        f'`{encoder.spec}`',
        f'{num_params(encoder.variables):,}',
        f'{num_bytes / 1e6:.1f} MB, {about["dtype"]}'
        + (f', answers move by {moved:.0e}' if moved else ''),
        f'{trained["data"]}, {trained["inputs"]:,} inputs',
        f'`{trained["method"]}`',
        f'{trained["epochs"]}',
        f'{trained["seed"]}',
        f'{trained["seconds"] / 60:.1f}',
        f'{about["evaluation"]["labels"]:,}',
        accuracy(about, 'linear_probe'),
        accuracy(about, 'knn'),
        f'`{about[files.CHECKSUM][:16]}`',
    )


def accuracy(about: dict[str, Any], metric: str) -> str:
    """Writes a share of the first task in per cent, with its interval and n.

    >>> row = {'metric': 'knn', 'value': 0.5, 'ci_low': 0.45, 'ci_high': 0.55, 'n': 400}
    >>> accuracy({'rows': [row]}, 'knn')
    '50.0 % (45.0 to 55.0, n = 400)'

    Args:
        about: the description of a victim.
        metric: the name of the metric.
    """
    row = next(row for row in about['rows'] if row['metric'] == metric)
    value, low, high = (100 * row[name] for name in ('value', 'ci_low', 'ci_high'))
    return f'{value:.1f} % ({low:.1f} to {high:.1f}, n = {row["n"]:,})'
