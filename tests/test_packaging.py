"""The distribution: a wheel in a fresh environment, the facade, the version in all its places."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

import ssl_extract

ROOT = pathlib.Path(__file__).parent.parent
FILES = ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE')
KINDS = ('.j2', '.py', '.typed')
FOLDERS = ('ssl_extract', 'experiments')


def run(*command, **kwargs):
    """The output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel of a copy of the sources, so that leftovers of other builds are not in it."""
    folder = tmp_path_factory.mktemp('wheel')
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / 'sources' / name)
    for name in FILES:
        shutil.copy(ROOT / name, folder / 'sources')
    offline = ('--no-build-isolation', '--no-deps', '--no-index', '--quiet')
    run(sys.executable, '-m', 'pip', 'wheel', *offline, '-w', folder, folder / 'sources')
    return next(folder.glob('*.whl'))


def test_the_wheel_holds_every_source_and_the_experiments(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    kinds = {'.py', '.j2', '.typed'}
    package = [
        p for p in ROOT.glob('ssl_extract/**/*') if p.suffix in kinds or p.name == 'py.typed'
    ]
    expected = {str(path.relative_to(ROOT)) for path in package}
    assert 'ssl_extract/py.typed' in expected and len(expected) > 100
    for pattern in ('experiments/**/*.py', 'experiments/victims/*.safetensors'):
        expected |= {f'ssl_extract/{path.relative_to(ROOT)}' for path in ROOT.glob(pattern)}
    assert 'ssl_extract/experiments/victims/digits_simclr.safetensors' in expected
    assert expected <= packed
    metadata = [name for name in packed - expected if '.dist-info/' not in name]
    assert metadata == []  # neither tests nor benchmarks


def test_the_installed_command_runs_experiments_by_name_from_any_folder(wheel, tmp_path):
    run(sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'venv')
    python = tmp_path / 'venv/bin/python'
    offline = ('--no-deps', '--no-index', '--quiet')
    run(sys.executable, '-m', 'pip', '--python', python, 'install', *offline, wheel)
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    dependencies = sysconfig.get_path('purelib')
    env = os.environ | {'PYTHONPATH': dependencies, 'JAX_PLATFORMS': 'cpu'}
    command = tmp_path / 'venv/bin/ssl-extract'

    code = 'import ssl_extract; print(ssl_extract.__file__)'
    assert run(python, '-c', code, cwd=elsewhere, env=env).startswith(str(tmp_path / 'venv'))
    shown = run(command, '--version', cwd=elsewhere, env=env)
    assert shown == f'ssl-extract {ssl_extract.__version__}\n'
    victim = "--config.victim.source=stored('digits_simclr')"
    flags = ('--config=quickstart', '--config.attack.loss=infonce', victim, '--dry_run')
    listing = run(command, 'run', *flags, cwd=elsewhere, env=env)
    assert 'direct, infonce, ' in listing and '\n18 runs, ' in listing
    assert not list(elsewhere.iterdir())


def test_importing_the_package_is_quick_and_imports_no_library():
    code = (
        'import sys, time; before = set(sys.modules); start = time.perf_counter(); '
        'import ssl_extract; print(time.perf_counter() - start, *set(sys.modules) - before)'
    )
    seconds, *modules = run(sys.executable, '-c', code, cwd=ROOT).split()
    own = {'ssl_extract'}
    assert own <= {module.split('.')[0] for module in modules} <= own | sys.stdlib_module_names
    assert float(seconds) < 0.1


def test_the_facade_imports_a_name_when_it_is_used():
    from ssl_extract.errors import UserError

    assert ssl_extract.UserError is UserError
    assert ssl_extract.losses.make('mse') and ssl_extract.config.base().seed == 1
    assert {'steal', 'collect', 'evaluate', 'victims', '__version__'} <= set(dir(ssl_extract))
    with pytest.raises(AttributeError, match="'ssl_extract' has no attribute 'stael'"):
        _ = ssl_extract.stael


def test_changelog_and_citation_are_of_this_version():
    newest = re.search(r'^## \[(.*?)\]', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    cited = re.search(r'^version: (.*)$', (ROOT / 'CITATION.cff').read_text(), re.MULTILINE)
    assert newest.group(1) == cited.group(1) == ssl_extract.__version__


def test_the_container_runs_what_the_makefile_has():
    lines = (ROOT / 'Dockerfile').read_text().replace('\\\n', ' ').splitlines()
    words = [line.split()[0] for line in lines if line and not line.startswith('#')]
    assert words == ['FROM', 'RUN', 'WORKDIR', 'COPY', 'RUN', 'CMD']
    targets = re.findall(r'^([.\w/]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    assert lines[-2] == 'RUN make .venv/.installed' and '.venv/.installed' in targets
    assert lines[-1] == 'CMD ["make", "test"]' and 'test' in targets
