"""The command `score`: verdicts on suspects as a table."""

import ast
import os
from typing import Any

from absl import flags
from etils import epath

from ssl_extract import api, data
from ssl_extract.cli import arguments
from ssl_extract.data import Dataset
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError, one_line
from ssl_extract.ownership import known_truth, represented, rotation_watermark, sslguard
from ssl_extract.ownership.scoring import SUSPECT, Score, as_csv
from ssl_extract.ownership.verdict import hits
from ssl_extract.pipeline.modules import import_modules
from ssl_extract.runtime import files, programs
from ssl_extract.victims import exported, sources
from ssl_extract.victims.model import Victim

_SHOWN = 20  # rows of the printed table


def main(argv: list[str]) -> int:
    """Scores the suspects that the flags describe, and prints the scores and the table's path.

    Args:
        argv: the program's name and flags.

    Returns:
        The exit code 0.

    Raises:
        UserError: a flag, a data set or an encoder is missing or wrong; see `api.score`.
    """
    values = arguments.new_values('score')
    if words := arguments.parse(values, argv):
        raise UserError(f'score: unexpected {words[0]!r}: write --suspects=FOLDER')
    for name in ('victim', 'suspects'):
        if not values[name].value:
            raise UserError(f'score: write --{name}=...')
    if not values.out.endswith('.csv'):
        raise UserError(f'--out={values.out}: write a name that ends in .csv')
    import_modules(tuple(values.modules))
    programs.keep()
    out = files.absolute(values.out)
    truths = None
    if values.truth:
        truths = known_truth.read(values.truth)
        known_truth.check(truths, represented.in_folder(values.suspects))
    victim = _victim_of(values.victim)
    private, public = (_set_of(values, name, victim) for name in ('private', 'public'))
    scores = api.score(
        victim,
        values.suspects,
        private=private,
        public=public,
        independents=values.independents or None,
        shadows=values.shadows or None,
        mark=_mark_of(values.secrets, victim),
        tests=_specs_of(values.tests),
        folder=out.with_suffix('.kept'),
    )
    from ssl_extract.ownership import page  # matplotlib takes a second

    files.write_text(out, as_csv(scores))
    page.write(out.with_suffix('.report'), scores, truths, title=out.stem)
    print(as_text(scores))
    for row in known_truth.rates(scores):
        if row.accused is not None:
            count = f'{hits(row.accused)} of {row.accused.n}'
            print(f'{row.test}: accuses {count} independent encoders, p < 0.05')
    print(f'scores: {out}')
    print(f'report: {out.with_suffix(".report") / "report.html"}')
    return 0


def as_text(scores: list[Score]) -> str:
    """Writes the suspects with the smallest corrected p-values as a table of a terminal.

    >>> print(as_text([Score('a', SUSPECT, 'gap', 2.0, 50, 0.01, 0.02, 'stolen', 'secrets')]))
    encoder  test  statistic  n   p_value  corrected  verdict  null
    a        gap   2          50  0.01     0.02       stolen   secrets
    """
    suspects = [score for score in scores if score.role == SUSPECT]
    first = sorted(suspects, key=lambda s: (s.corrected is None, s.corrected or 0.0))[:_SHOWN]
    names = [name for name in Score._fields if name != 'role']
    rows = [names, *([_cell(getattr(score, name)) for name in names] for score in first)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(map(str.ljust, row, widths)).rstrip() for row in rows]
    left = len(suspects) - len(first)
    return '\n'.join([*lines, f'and {left} more'] if left else lines)


def _cell(value: str | float | None) -> str:
    return value if isinstance(value, str) else '' if value is None else f'{value:.4g}'


def _victim_of(text: str) -> Encoder | Victim:
    """Returns the victim of a path or a source."""
    path = epath.Path(text)
    named = path.suffix.removeprefix('.') in exported.FORMATS
    if os.path.exists(text) or ('(' not in text and (named or path.exists())):  # of a bucket
        return represented.read(path)
    return sources.load(text)


def _mark_of(secrets: str, victim: Encoder | Victim) -> Any:
    """Returns the victim's mark: SSLGuard's secrets of files, or the rotation predictor."""
    if secrets:
        return tuple(sslguard.load(path.strip()) for path in secrets.split(','))
    encoder = victim if isinstance(victim, Encoder) else victim.encoder
    marked = encoder is not None and rotation_watermark.MARK in dict(encoder.heads)
    return rotation_watermark.mark_of(encoder) if marked else None


def _set_of(values: flags.FlagValues, name: str, victim: Encoder | Victim) -> Dataset | None:
    """Loads the set of a flag, as in 'digits/train[:500]': a data set, a slash and a split."""
    text = values[name].value
    if not text:
        return None
    spec, slash, split = text.rpartition('/')
    if not slash or not split or split.count(')') > split.count('('):
        raise UserError(f"--{name}={text}: write a data set and a split: --{name}='digits/train'")
    shape = victim.input_shape
    size = values.size or (shape[0] if shape is not None and len(shape) == 3 else None)
    return data.load(spec, split, size=size, data_dir=values.data_dir)


def _specs_of(text: str) -> list[str] | None:
    """Splits 'one,other(a=1,b=2)' at the outer commas; '' is None.

    Raises:
        UserError: the text does not parse.
    """
    if not text.strip():
        return None
    try:
        parsed = ast.parse(f'({text},)', mode='eval').body
    except SyntaxError:
        parsed = None
    if not isinstance(parsed, ast.Tuple):
        raise UserError(f"--tests={one_line(text)}: write names: --tests='one,other(a=1)'")
    return [ast.unparse(item) for item in parsed.elts]
