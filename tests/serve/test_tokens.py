"""The tokens file, and the commands that make and read it."""

import concurrent.futures
import hashlib
import json
import os

import pytest
from addresses import save_encoder

from ssl_extract import cli
from ssl_extract.errors import UserError
from ssl_extract.serve import tokens

HASH = hashlib.sha256(b'a long secret of mine').hexdigest()


def written(folder, text, mode=0o600):
    path = folder / 'tokens.json'
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    path.chmod(mode)
    return path


def test_new_tokens_open_their_entries_and_are_not_in_the_file(tmp_path):
    path = tmp_path / 'folder' / 'tokens.json'
    first = tokens.add(path, ['alice', 'bob'], 100)
    second = tokens.add(path, ['carol'], None)
    assert [*first, *second] == ['owner', 'alice', 'bob', 'carol']
    entries = tokens.read(path)
    assert {e.name: e.budget for e in entries} == {
        'owner': None,
        'alice': 100,
        'bob': 100,
        'carol': None,
    }
    for name, token in (first | second).items():
        assert len(token) >= 43 and token not in path.read_text()  # 256 bits
        assert tokens.find(entries, token).name == name
        assert tokens.find(entries, token[:-1]) is None
    assert tokens.find(entries, '') is None
    assert path.stat().st_mode & 0o077 == 0


def test_a_token_of_ones_own_or_its_hash_may_stand_in_the_file(tmp_path):
    path = written(tmp_path, {'a': {'token': 'a_long_secret_of_mine', 'budget': 3}})
    assert tokens.find(tokens.read(path), 'a_long_secret_of_mine').budget == 3
    path.chmod(0o640)
    with pytest.raises(UserError, match='others can read it: chmod 600'):
        tokens.read(path)
    hashed = written(tmp_path, {'a': {'sha256': HASH, 'budget': None}}, 0o644)
    assert tokens.find(tokens.read(hashed), 'a long secret of mine').budget is None


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"a": ', 'no tokens file'),
        ('[1]', 'no tokens file'),
        ('{"a": {"budget": 1}}', 'write "sha256" or "token"'),
        (f'{{"a": {{"sha256": "{HASH}", "budget": 1}}, "a": {{}}}}', 'stands there twice'),
        (f'{{"a": {{"sha256": "{HASH}"}}}}', '"budget", a number of queries or null'),
        (f'{{"a": {{"sha256": "{HASH}", "budget": 0}}}}', '"budget" must be a whole number'),
        (f'{{"a": {{"sha256": "{HASH}", "budget": true}}}}', '"budget" must be a whole number'),
        (f'{{"a": {{"sha256": "{HASH}", "limit": 1, "budget": 1}}}}', 'write "sha256" or "token"'),
        (f'{{"a/b": {{"sha256": "{HASH}", "budget": 1}}}}', 'letters, digits'),
        (f'{{"..": {{"sha256": "{HASH}", "budget": 1}}}}', 'letters, digits'),
        (f'{{"owner": {{"sha256": "{HASH}", "budget": 1}}}}', 'the owner sends no queries'),
        ('{"a": {"sha256": "1234", "budget": 1}}', '64 hexadecimal digits'),
        ('{"a": {"token": "short", "budget": 1}}', '16 or more ASCII letters'),
        (
            json.dumps({name: {'sha256': HASH, 'budget': 1} for name in 'ab'}),
            'the same token',
        ),
    ],
)
def test_wrong_files_are_one_line(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        tokens.read(path)
    assert '\n' not in str(caught.value)


def test_a_name_has_one_token(tmp_path):
    path = tmp_path / 'tokens.json'
    tokens.add(path, ['alice'], 1)
    before = path.read_bytes()
    for names, budget in ((['bob', 'alice'], 1), (['bob', 'bob'], 1), (['owner'], 1), (['x y'], 1)):
        with pytest.raises(UserError):
            tokens.add(path, names, budget)
    with pytest.raises(UserError, match='whole number from 1'):
        tokens.add(path, ['bob'], 0)
    assert path.read_bytes() == before


def test_names_that_are_added_at_the_same_time_all_get_tokens(tmp_path):
    path, names = tmp_path / 'tokens.json', [f'user{i}' for i in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda name: tokens.add(path, [name], 5), names))
    digests = {entry.name: entry.digest for entry in tokens.read(path)}
    assert [digests[n] for n in names] == [
        tokens.digest_of(m[n]) for n, m in zip(names, made, strict=True)
    ]
    assert len(digests) == 9 and sum('owner' in m for m in made) == 1


def error_of(capsys, *words):
    code = cli.main(['ssl-extract', *words])
    out, err = capsys.readouterr()
    assert code == 2 and out == '' and err.startswith('error: ') and err.count('\n') == 1, err
    return err


def test_wrong_commands_are_refused_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 'write a file and names' in error_of(capsys, 'tokens', 'tokens.json')
    assert not os.listdir()
    assert 'serve: write --victim=' in error_of(capsys, 'serve')
    assert 'serve: write --tokens=' in error_of(capsys, 'serve', '--victim=stored("x")')
    assert "unexpected 'x'" in error_of(capsys, 'serve', 'x')
    tokens.add('tokens.json', ['a'], 5)
    given = ('serve', '--tokens=tokens.json', '--port=0')
    function = "--victim=function('numpy:abs', dim=3)"
    assert 'does not say the shape' in error_of(capsys, *given, function)
    assert '--input_shape=3,x: write' in error_of(capsys, *given, function, '--input_shape=3,x')
    assert '--input_shape=-1: write' in error_of(capsys, *given, function, '--input_shape=-1')
    assert 'nothing is trained here' in error_of(capsys, *given, '--victim=pretrain')
    assert 'holds 0 finished victims' in error_of(capsys, *given, '--victim=.')
    save_encoder(tmp_path / 'victim' / 'a')
    os.symlink('.', "runs (1) of 'a' | b")
    for workdir in ('.', "runs (1) of 'a' | b"):
        other = error_of(capsys, *given, f'--victim={workdir}', '--input_shape=9,9,3')
        assert 'this victim takes inputs of 8,8,3' in other
    assert "unknown victim source 'runs'" in error_of(capsys, *given, '--victim=runs (2)')
    long = f"--victim=function('numpy:abs', dim=3, address='{'a' * 300}')"
    assert 'does not say the shape' in error_of(capsys, *given, long)
    (tmp_path / 'victim' / 'b').mkdir()
    (tmp_path / 'victim' / 'b' / 'meta.json').write_text('{}')
    assert 'write one of checkpoint(path=' in error_of(capsys, *given, '--victim=.')
    shaped = (*given, function, '--input_shape=3')
    assert 'no such file' in error_of(capsys, *shaped, '--tokens=elsewhere.json')
    assert 'unknown' in error_of(capsys, *shaped, '--defense=nothing')
    assert 'write another port' in error_of(capsys, *shaped, '--host=192.0.2.1')
    assert 'flag --port=70000' in error_of(capsys, *shaped, '--port=70000')
