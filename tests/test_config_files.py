"""Experiment files, modules, fields and workdirs that are wrong: one line, before any training."""

import contextlib
import os
import pathlib
import shutil
import tempfile

import pytest
from processes import ROOT

from ssl_extract import cli
from ssl_extract.cli import experiments
from ssl_extract.errors import UserError
from ssl_extract.pipeline.context import check_workdir

TINY = f'--config={ROOT}/tests/helpers/tiny.py'
START = 'from ssl_extract import config\ndef get_config():\n  c = config.base()\n  '


def refused(capsys, *words):
    """The one line on stderr of a command that must neither train nor write."""
    code = cli.main(['ssl-extract', *words])
    out, err = capsys.readouterr()
    assert code == 2 and out == '' and err.startswith('error: ') and err.count('\n') == 1, err
    return err


@pytest.mark.parametrize(
    ('text', 'argument', 'message'),
    [
        ('def get_config(:', '', r'mine.py, line 1: invalid syntax'),
        ('import no_such_thing', '', r'mine.py, line 1: ModuleNotFoundError: No module'),
        ('def get_config():\n  return {}["a"]', '', r"mine.py, line 2: KeyError: 'a'"),
        ('def get_config():\n  return {}', '', r'get_config\(\) returned dict {}; start it from'),
        ('def get_config():\n  return 3', '', r'get_config\(\) returned int 3; start it from'),
        ('def get_config():\n  return', '', r'get_config\(\) returned NoneType None; start it'),
        ('def get_config():\n  return {}', ':x', r"takes no argument: leave out ':x'"),
        ('def get_config(x):\n  return {}', '', r'get_config\(\) needs an argument'),
        ('def get_config():\n  raise SystemExit', '', r'mine.py, line 2: SystemExit'),
        ('get_konfig = 1', '', r'this file has no function get_config\(\); write one'),
        ('get_config = 1', '', r'this file has no function get_config\(\); write one'),
        (f'{START}c.attack.nope = 3', '', r'mine.py, line 4: nope: .* did you mean name\? known'),
        (f'{START}c["seeed"] = 3', '', r'mine.py, line 4: seeed: .* did you mean seed\? known'),
        (f'{START}c.attack.budget = "x"', '', r"mine.py, line 4: TypeError: .*field 'budget'"),
        (f'{START}c.unlock()\n  del c.seed\n  return c', '', r'returned a config without seed;'),
        ('import sys\nsys.path = sys.path[1:]\n1 / 0', '', r'mine.py, line 3: ZeroDivisionError'),
    ],
)
def test_what_is_wrong_with_an_experiment_is_told_with_its_place(tmp_path, text, argument, message):
    (tmp_path / 'mine.py').write_text(text)
    with pytest.raises(UserError, match=message):
        experiments.load(f'{tmp_path}/mine.py{argument}')


def test_what_is_wrong_with_a_neighbor_is_told_with_the_neighbors_place(tmp_path):
    (tmp_path / 'mine.py').write_text('import broken_neighbor')
    for text, message in {
        'def f(:': r'broken_neighbor.py, line 1: invalid syntax',
        'x = 1\n1 / 0': r'broken_neighbor.py, line 2: ZeroDivisionError',
    }.items():
        (tmp_path / 'broken_neighbor.py').write_text(text)
        with pytest.raises(UserError, match=message):
            experiments.load(f'{tmp_path}/mine.py')


def test_a_byte_order_mark_is_no_error_and_other_encodings_are(tmp_path):
    text = f'{START}return c\n'
    (tmp_path / 'marked.py').write_bytes(b'\xef\xbb\xbf' + text.encode())
    assert experiments.load(f'{tmp_path}/marked.py').config.seed == 1
    for name, content, message in (
        ('latin', b'x = "\xff"\n', r'latin.py, line 1: .*utf-8'),
        ('utf16', text.encode('utf-16'), r'utf16.py: .*null bytes'),
    ):
        (tmp_path / f'{name}.py').write_bytes(content)
        with pytest.raises(UserError, match=message):
            experiments.load(f'{tmp_path}/{name}.py')


def test_an_experiment_is_a_py_file(capsys, tmp_path):
    assert '--config=: there is no such experiment; write the path' in refused(capsys, '--config=')
    assert 'this is a folder; write the path of a .py file' in refused(
        capsys, f'--config={tmp_path}'
    )
    (tmp_path / 'notes').write_text('')
    for name in (f'{tmp_path}/notes', f'{tmp_path}/notes/x.py', '~no_such_user/x.py'):
        assert 'there is no such file' in refused(capsys, f'--config={name}')
    assert 'is not UTF-8' in refused(capsys, '--config=\udcff.py')


FIELDS = {
    'attack.nope=3': 'attack.nope: there is no such field: did you mean attack.name? known are acc',
    'attack.bugdet=3': 'did you mean attack.budget?',
    'attack.neighbors=3': 'did you mean evaluation.neighbors?',
    'epochs=3': 'did you mean attack.epochs or victim.epochs? known are attack, baselines, ',
    'seed.x=3': 'did you mean seed?',
    'attack.loss[0]=x': 'did you mean attack.loss?',
    '=3': 'there is no such field: known are attack, ',
    'victim=3': 'write one of its fields, victim.augmentation, ',
    'seed=x': "flag --config.seed=x: write a whole number instead of 'x'",
    'attack.learning_rate=x': "write a number instead of 'x'",
    'baselines.random=maybe': "write true or false instead of ('maybe')",
    'seed': 'Missing value for flag --config.seed',
    'modules=(1,)': 'modules=(1,): write a list, each item a text',
    'modules=no_such_module': "there is no module 'no_such_module'",
}


@pytest.mark.parametrize(('field', 'message'), FIELDS.items())
def test_a_field_that_is_wrong_is_named_with_the_nearest_one(capsys, tmp_path, field, message):
    err = refused(capsys, TINY, f'--workdir={tmp_path}/w', f'--config.{field}')
    assert message in err and not list(tmp_path.iterdir())


def test_the_fields_of_the_list_of_runs_are_checked_alike(capsys, tmp_path):
    (tmp_path / 'mine.py').write_text(f'{START}c.runs = ({{"attack.nope": 3}},)\n  return c')
    err = refused(capsys, f'--config={tmp_path}/mine.py')
    assert 'runs[0] sets attack.nope=3: there is no such field: did you mean attack.name?' in err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--workdir',), 'Missing value for flag --workdir'),
        (('--workdir=',), '--workdir=: write a folder, or leave the flag out'),
        (('--workdir', '--dry_run'), '--workdir --dry_run: write --workdir=VALUE'),
        (('--config.attack.loss', '--config.seed=3'), 'write --config.attack.loss=VALUE'),
        (('--run_index=x',), "flag --run_index=x: write a whole number instead of 'x'"),
        (('--run_index',), 'Missing value for flag --run_index'),
        (('--dry_run=maybe',), "write true or false instead of ('maybe')"),
        (('--flagfile={0}/none',), 'No such file or directory'),
        (('--workdir={0}/file', '--dry_run'), 'file is a file; write a folder'),
        (('--workdir={0}/file',), 'file is a file; write a folder'),
        (('--workdir={0}/file/below/it',), 'file is a file; write a folder'),
        (('--workdir=~no_such_user/x',), 'there is no home folder ~no_such_user'),
        (('--workdir={0}/' + 300 * 'x',), 'File name too long: put that right'),
        (('--workdir=nowhere://x',), 'checkpoints cannot be written to nowhere://; write a folder'),
        (('--jax_platforms=cpu', '--', 'x'), "unexpected 'x'"),
    ],
)
def test_a_flag_or_a_workdir_that_is_wrong_is_named(capsys, tmp_path, words, message):
    (tmp_path / 'file').touch()
    assert message in refused(capsys, TINY, *(word.replace('{0}', str(tmp_path)) for word in words))
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_report_and_list_name_what_is_wrong_too(capsys, tmp_path):
    (tmp_path / 'broken_module.py').write_text('x = (')
    with contextlib.chdir(tmp_path):
        err = refused(capsys, 'list', '--modules=broken_module')
        assert "modules: 'broken_module': " in err and 'broken_module.py, line 1: ' in err
    for words in (('nowhere://x',), (str(tmp_path), '--out=nowhere://x')):
        assert "report nowhere://x: 'nowhere://'; write a" in refused(capsys, 'report', *words)
    err = refused(capsys, 'report', str(tmp_path), '--out=~no_such_user/x')
    assert 'report ~no_such_user/x: there is no home folder ~no_such_user' in err
    assert "report '': there is no such folder" in refused(capsys, 'report', '')
    assert 'there is no such folder' in refused(
        capsys, 'report', str(tmp_path / 'broken_module.py')
    )
    assert 'no run is finished' in refused(capsys, 'report', str(tmp_path))
    assert 'write --out=VALUE' in refused(capsys, 'report', str(tmp_path), '--out', '--title=x')


@pytest.fixture
def as_nobody():
    """A folder of this test's, and the rights of a user who is not root."""
    folder = pathlib.Path(tempfile.mkdtemp())
    is_root = os.geteuid() == 0
    folder.chmod(0o755)
    if is_root:
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    yield folder
    if is_root:
        os.seteuid(0)
    shutil.rmtree(folder)


@pytest.mark.parametrize('workdir', ['s3://bucket/runs', 'memory://runs'])
def test_a_bucket_that_takes_no_checkpoints_is_refused(workdir):
    with pytest.raises(UserError, match=r'checkpoints cannot be written to \w+://; write a folder'):
        check_workdir(workdir)


def test_a_workdir_without_rights_is_found_before_any_training(as_nobody):
    check_workdir(as_nobody / 'new' / 'one')
    as_nobody.chmod(0o555)
    with pytest.raises(UserError, match=r'must not be written; write another folder, or change'):
        check_workdir(as_nobody / 'new')
    as_nobody.chmod(0o000)
    with pytest.raises(PermissionError):  # told in one line, as in test_cli.py
        check_workdir(as_nobody / 'new')
    as_nobody.chmod(0o755)
