"""Texts of files as tokens: classes, splits, lengths, and what is refused."""

import sys

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ssl_extract import data
from ssl_extract.errors import UserError

WORDS = ['?', '<s>', '</s>', *'abcdefghij', 'ß']
NUMBERS = {word: number for number, word in enumerate(WORDS)}
RNG = np.random.default_rng(0)
LINES = [
    f'{kind} {" ".join(RNG.choice(WORDS[3:], RNG.integers(1, 6)))}'
    for kind in ['no'] * 30 + ['yes'] * 10
]


@pytest.fixture
def spec(tmp_path):
    """Writes a file and a tokenizer, and gives the description of the set."""
    tokenizer = Tokenizer(models.WordLevel(NUMBERS, '?'))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A </s>', special_tokens=[('<s>', 1), ('</s>', 2)]
    )
    tokenizer.enable_truncation(2)  # neither is of use to the sets
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / 'words.json'))

    def describe(*lines, options='', name='all.txt', encoding='utf-8', **others):
        for file, content in {name: lines, **others}.items():
            content = content if isinstance(content, bytes) else None
            path = tmp_path / file.replace('__', '.')
            path.write_bytes(content or ''.join(f'{line}\n' for line in lines).encode(encoding))
        words = tmp_path / 'words.json'
        return f'text_lines("{tmp_path / name}", tokenizer="{words}"{options})'

    return describe


def sentences(dataset):
    """The words of each row, with its class; padding stands behind them and nowhere else."""
    rows = []
    for row, label in zip(dataset.inputs, dataset.labels, strict=True):
        length = np.sum(row >= 0)
        assert (row[length:] == -1).all()
        rows.append((int(label), ' '.join(WORDS[number] for number in row[:length])))
    return rows


def expected(lines, kinds=('no', 'yes')):
    return [
        (kinds.index(kind), ' '.join(['<s>', *words, '</s>']))
        for kind, *words in (line.split() for line in lines)
    ]


def test_every_line_is_a_row_of_tokens(spec):
    whole = data.load(spec(*LINES, options=', length=8'), 'all')
    assert sorted(sentences(whole)) == sorted(expected(LINES))
    assert (whole.inputs.dtype, whole.inputs.shape) == (np.int32, (40, 8))
    assert (whole.decode, whole.num_classes) == ('tokens', 2)
    plain = data.load(spec(*LINES, options=', special_tokens=False'), 'all')
    assert plain.inputs.shape == (40, 64)
    wanted = {text.removeprefix('<s> ').removesuffix(' </s>') for _, text in expected(LINES)}
    assert {text for _, text in sentences(plain)} == wanted


def test_a_slice_has_all_classes_and_does_not_depend_on_the_order_of_the_file(spec):
    first = data.load(spec(*LINES), 'all[:50%]')
    assert np.bincount(first.labels).tolist() == [15, 5]
    rest = data.load(spec(*LINES), 'all[50%:]')
    assert sorted(sentences(first) + sentences(rest)) == sorted(expected(LINES))
    again = data.load(spec(*LINES[::-1]), 'all[:50%]')
    np.testing.assert_array_equal(again.inputs, first.inputs)
    np.testing.assert_array_equal(again.labels, first.labels)


def test_equal_texts_stand_together(spec):
    letters = {'no': 'abcde', 'yes': 'fghij'}
    lines = 2 * [f'{kind} {a} {b}' for kind in letters for a in letters[kind] for b in 'abcde']
    halves = (data.load(spec(*lines), split) for split in ('all[:50%]', 'all[50%:]'))
    assert data.count_shared(*halves) <= 2  # of each class, the text at the edge


def test_the_same_text_in_sets_of_longer_texts_is_found(spec):
    known, new = 'no a b', 'yes c d'
    short = data.load(spec(known, new), 'all')
    long = data.load(spec(known, 'yes ' + 'e ' * 40, name='long.txt'), 'all')
    assert data.count_shared(short, long) == 1
    with pytest.raises(UserError, match='1 of the 2 inputs of .*long.txt.* are among'):
        data.check_train_test(short, long)


def test_classes_are_those_of_both_files(spec, tmp_path):
    kinds = ('10', '2', '3')  # sorted as texts
    train, test = ['3 a', '2 b', '10 c', '3 d'], ['3 e', '10 f']
    spec(*test, name='test.txt')
    both = spec(*train, options=f', test_path="{tmp_path / "test.txt"}"')
    sets = {split: data.load(both, split) for split in ('train', 'test', 'all')}
    assert sorted(sentences(sets['train'])) == sorted(expected(train, kinds))
    assert sorted(sentences(sets['test'])) == sorted(expected(test, kinds))
    assert sorted(sentences(sets['all'])) == sorted(expected(train + test, kinds))
    assert {dataset.num_classes for dataset in sets.values()} == {3}
    with pytest.raises(UserError, match=r'its splits are all \(5\), train \(4\), test|all \(6\)'):
        data.load(both, 'valid')


def test_tables_have_the_class_first(spec):
    lines = ['"3","a b","c\nd ""?"""', '"1","e","f, g"', '3 ,i,j\r']
    rows = sentences(data.load(spec(*lines, name='news.csv'), 'all'))
    wanted = [(0, '<s> e ? g </s>'), (1, '<s> a b c d ? </s>'), (1, '<s> i j </s>')]
    assert sorted(rows) == wanted
    same = data.load(spec('no a\r', 'yes\tb'), 'all')
    assert sorted(sentences(same)) == expected(['no a', 'yes b'])


def test_the_encoding_is_an_argument(spec):
    lines = ['no ß a', 'yes b']
    latin = spec(*lines, encoding='latin-1', options=', encoding="latin-1"')
    assert sorted(sentences(data.load(latin, 'all'))) == sorted(expected(lines))
    with pytest.raises(UserError, match="can't decode byte 0xdf.*; write its encoding, e.g. "):
        data.load(latin.replace('latin-1', 'utf-8'), 'all')
    # U+0085 ends a line of Unicode, but none of the file.
    (row,) = sentences(data.load(spec('no a \x85 b', encoding='latin-1', options=OLD), 'all'))
    assert row == (0, '<s> a b </s>')


OLD = ', encoding="latin-1"'


def test_longer_texts_are_refused_or_cut(spec):
    lines = ['no a b c', 'no d', 'yes ' + 'e ' * 9]
    with pytest.raises(UserError) as error:
        data.load(spec(*lines, options=', length=4'), 'all')
    assert str(error.value).endswith(
        '2 of 3 texts have more than 4 tokens: write length=11 for the longest, or cut=True to '
        'cut them'
    )
    cut = data.load(spec(*lines, options=', length=4, cut=True'), 'all')
    assert sorted(sentences(cut)) == sorted(expected(['no a b', 'no d', 'yes e e']))
    assert data.load(spec(*lines, options=', length=11'), 'all').inputs.shape == (3, 11)


@pytest.mark.parametrize(
    ('lines', 'options', 'message'),
    [
        (['no a', '', 'yes b'], '', 'line 2 has no label or no text'),
        (['no a', 'yes'], '', 'line 2 has no label or no text'),
        ([], '', 'it has no line'),
        (['no a\ryes b'], '', 'line 1 holds a carriage return'),
        (['\ufeffno a'], '', "byte order mark; write encoding='utf-8-sig'"),
        (['no a'], ', encoding="no-such"', 'unknown encoding: no-such; write its encoding'),
        (['no a'], ', length=0', 'length must be a whole number from 1'),
        (['no a'], ', length=2, cut=True', 'it adds 2 tokens; write a length above 2'),
        (['no a', 'no \xa0'], ', special_tokens=False', 'line 2 has no label or no text'),
        (['class,text', '1,a', '2,b'], '', "its first line is a header, with 'class'; remove"),
        (['1,a', '2,b,c'], '', 'line 2 has 3 columns, the first line 2'),
        (['1,"a', '2,b'], '', 'unexpected end of data'),
        (['1', '2'], '', 'line 1 has no label or no text'),
    ],
)
def test_wrong_files_are_named(spec, lines, options, message):
    name = 'all.csv' if any(line[:1] in '1c' for line in lines if line) else 'all.txt'
    with pytest.raises(UserError, match=message) as error:
        data.load(spec(*lines, options=options, name=name), 'all')
    assert '\n' not in str(error.value)


def test_a_text_without_tokens_is_refused(spec, tmp_path):
    described = spec('no a', 'yes zz')
    Tokenizer(models.BPE({'a': 0}, [])).save(str(tmp_path / 'words.json'))  # and nothing unknown
    with pytest.raises(UserError, match=r"1 of 2 texts have no token of .*first: 'zz'"):
        data.load(described, 'all')


@pytest.mark.parametrize('content', [b'', b'{}', b'\xff', b'[1'])
def test_a_broken_tokenizer_is_named(spec, tmp_path, content):
    described = spec('no a')
    (tmp_path / 'words.json').write_bytes(content)
    with pytest.raises(UserError, match=r'cannot read .*words\.json') as error:
        data.load(described, 'all')
    assert '\n' not in str(error.value)


def test_a_tokenizer_that_draws_is_refused(spec, tmp_path):
    described = spec('no a')
    Tokenizer(models.BPE({'a': 0}, [], dropout=0.5)).save(str(tmp_path / 'words.json'))
    with pytest.raises(UserError, match='its model has a dropout'):
        data.load(described, 'all')


def test_without_the_library_the_extra_is_named(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tokenizers', None)
    with pytest.raises(UserError, match=r"pip install 'ssl_extract\[text\]'"):
        data.load(spec('no a'), 'all')


def test_tokens_are_decoded_exactly():
    stored = np.array([[0, 2**24 - 1, -1]], np.int32)
    decoded = data.decoder(data.Dataset(stored, decode='tokens'))(stored)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(decoded, np.int64), stored)


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ([[1, -1], [-1, 1]], 'row 1'),
        ([[1, -1], [-1, -1]], 'row 1'),
        ([[1, -2], [1, 1]], 'row 0'),
        ([[1, 1], [1, 2**24]], 'tokens are numbers from 0 to 16777215.* row 1'),
        ([[0.5, 1.0]], r'got float32 \[1, 2\]'),
        ([1, 2], r'got int32 \[2\]'),
    ],
)
def test_wrong_tokens_are_refused(rows, message):
    with pytest.raises(UserError, match=message):
        data.checked(data.Dataset(np.array(rows), decode='tokens'))
