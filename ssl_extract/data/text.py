"""Texts with classes, as tokens of a tokenizer that a file holds.

A tokenizer file is one of the library `tokenizers` (extra `text`). Train it once, for all sets:

    from tokenizers import BertWordPieceTokenizer
    tokenizer = BertWordPieceTokenizer()
    tokenizer.train(['texts.txt'], vocab_size=8_000)
    tokenizer.save('tokenizer.json')

No set has a tokenizer of its own, since the same word would get other numbers in another set.
"""

import csv
import io
import re
from collections.abc import Iterator

import numpy as np
from etils import epath

from ssl_extract import padding
from ssl_extract.checks import check_memory
from ssl_extract.data.loading import register
from ssl_extract.data.sets import Dataset, hashes
from ssl_extract.data.splits import select
from ssl_extract.errors import UserError
from ssl_extract.ranges import Count
from ssl_extract.runtime import files

_SHOWN = 40  # characters of a text in a message


@register('text_lines')
def text_lines(
    path: str,
    tokenizer: str,
    length: Count = 64,
    cut: bool = False,
    test_path: str = '',
    encoding: str = 'utf-8',
    special_tokens: bool = True,
    *,
    split: str,
) -> Dataset:
    """Reads lines "LABEL text", or the rows of a .csv, as tokens int32 [N, length].

    The first column of a .csv is the class. The text is the other columns, with spaces between
    them. Classes are numbered by their names, sorted as texts. Padding behind a text is -1.

    The split 'all' holds every text. With `test_path`, the splits 'train' and 'test' hold the texts
    of `path` and of `test_path`, 'all' holds both, and the classes are those of both. The order
    within a split is fixed and stratified: 'all[:80%]' and 'all[80%:]' hold all classes in the
    proportions of the whole. The order is drawn from the tokens, so that equal texts stand
    together.

    >>> import pathlib, tempfile; from tokenizers import Tokenizer, models
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> Tokenizer(models.WordLevel({'?': 0, 'good': 1}, '?')).save(f'{root}/words.json')
    >>> size = (root / 'all.txt').write_text('pos good\\nneg bad\\n')
    >>> text_lines(f'{root}/all.txt', f'{root}/words.json', 2, split='all').inputs.shape
    (2, 2)

    Args:
        path: the file; a name that ends in .csv is a .csv without a header. A relative path is one
            of the working directory.
        tokenizer: the JSON file of a tokenizer; padding and truncation in the file are not used.
        length: of a row, in tokens; the same for all sets of an experiment.
        cut: whether texts of more than `length` tokens are cut; else they are refused.
        test_path: a second file, for the splits 'train' and 'test'.
        encoding: of the files, such as 'latin-1'.
        special_tokens: whether to add what the tokenizer adds, such as a token for the beginning.
        split: 'all[:80%]', 'train', 'train[:100]+test', ...

    Raises:
        UserError: the library is missing, a file cannot be read, a line has no label or no text, a
            text has no token or too many, or the split does not exist.
    """
    sources = {'train': path, 'test': test_path} if test_path else {'all': path}
    lines = [(part, *line) for part, file in sources.items() for line in _read(file, encoding)]
    parts, kinds = np.array([line[:2] for line in lines]).T
    check_memory(f'length={length}: {len(lines):,} texts', 4 * len(lines) * length)
    tokens = _tokens(
        tokenizer, [text for *_, text in lines], length, length if cut else None, special_tokens
    )
    names, labels = np.unique(kinds, return_inverse=True)
    order = _order(tokens, labels + len(names) * (parts == 'test'))
    rows = {part: order[parts[order] == part] for part in sources}
    chosen = select(split, {'all': order} | rows)
    return Dataset(tokens[chosen], labels[chosen], len(names), decode='tokens')


def _read(path: str, encoding: str) -> list[tuple[str, str]]:
    """Reads the class and the text of each line of a file."""
    with files.reading(path):
        content = epath.Path(path).expanduser().read_bytes()
        try:
            content = content.decode(encoding)
        except (UnicodeError, LookupError) as error:
            raise ValueError(f"{error}; write its encoding, e.g. encoding='latin-1'") from None
        if content.startswith('\ufeff'):
            raise ValueError("it begins with a byte order mark; write encoding='utf-8-sig'")
        lines = list(_cells(content) if path.endswith('.csv') else _words(content))
        for number, kind, text in lines:
            if not (kind.strip() and text.strip()):
                raise ValueError(f'line {number} has no label or no text')
        if not lines:
            raise ValueError('it has no line')
    return [(kind, text) for _, kind, text in lines]


def _words(content: str) -> Iterator[tuple[int, str, str]]:
    """Yields the number, the first word and the rest of each line."""
    lines = content.split('\n')  # str.splitlines splits at characters within a text too
    for number, line in enumerate(lines[: len(lines) - (not lines[-1])], 1):
        line = line.removesuffix('\r').strip(' \t')
        if '\r' in line:
            raise ValueError(f'line {number} holds a carriage return; end lines with a line feed')
        kind, text, *_ = (*re.split('[ \t]+', line, maxsplit=1), '')
        yield number, kind, text


def _cells(content: str) -> Iterator[tuple[int, str, str]]:
    """Yields the number of the last line, the first cell and the other cells of each row."""
    reader, rows = csv.reader(io.StringIO(content, newline=''), strict=True), []
    for row in reader:
        rows.append((reader.line_num, row))
        if len(row) != len(rows[0][1]):
            raise ValueError(
                f'line {reader.line_num} has {len(row)} columns, the first line {len(rows[0][1])}'
            )
    kinds = [row[0].strip() for _, row in rows if row]
    if len(kinds) > 1 and not kinds[0].isdecimal() and all(map(str.isdecimal, kinds[1:])):
        raise ValueError(f'its first line is a header, with {kinds[0]!r}; remove the line')
    yield from ((number, ''.join(row[:1]).strip(), ' '.join(row[1:])) for number, row in rows)


def _tokens(
    path: str, texts: list[str], length: int, cut: int | None, special_tokens: bool
) -> np.ndarray:
    """Returns the tokens of each text, int32 [N, length].

    Args:
        path: of the tokenizer.
        texts: N texts.
        length: of a row.
        cut: the number of tokens that are kept of a longer text; None keeps all.
        special_tokens: whether the tokenizer adds tokens to a text.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UserError("text_lines needs tokenizers: pip install 'ssl_extract[text]'") from None
    with files.reading(path):
        tokenizer = Tokenizer.from_str(epath.Path(path).expanduser().read_text('utf-8'))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if getattr(tokenizer.model, 'dropout', None):
            raise ValueError('its model has a dropout, and no text has the same tokens twice')
        added = tokenizer.num_special_tokens_to_add(False) if special_tokens else 0
        if cut:
            if cut <= added:
                raise ValueError(f'it adds {added} tokens; write a length above {added}')
            tokenizer.enable_truncation(cut)
        encoded = tokenizer.encode_batch(texts, add_special_tokens=special_tokens)
    lengths = np.array([len(text.ids) for text in encoded])
    if not lengths.all():
        first = texts[lengths.argmin()][:_SHOWN]
        raise UserError(
            f'{np.sum(lengths == 0)} of {len(texts)} texts have no token of {path} (first: '
            f'{first!r}): remove them, or write another tokenizer'
        )
    if lengths.max() > length:
        raise UserError(
            f'{np.sum(lengths > length)} of {len(texts)} texts have more than {length} tokens: '
            f'write length={lengths.max()} for the longest, or cut=True to cut them'
        )
    tokens = np.full((len(texts), length), padding.STORED_TOKEN, np.int32)
    for row, text in zip(tokens, encoded, strict=True):
        row[: len(text.ids)] = text.ids
    return tokens


def _order(tokens: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns all row numbers, each group evenly spread, in an order drawn from the tokens.

    Args:
        tokens: int32 [N, T].
        groups: int [N], the class and the file of each row.
    """
    sizes, order = np.bincount(groups), np.lexsort((hashes(tokens), groups))
    starts = np.cumsum(sizes) - sizes
    sorted_groups = groups[order]
    positions = (np.arange(len(order)) - starts[sorted_groups] + 0.5) / sizes[sorted_groups]
    return order[np.lexsort((sorted_groups, positions))]
