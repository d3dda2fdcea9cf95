"""What the docs show works: python blocks run, commands run, links lead somewhere."""

import pathlib
import re
import shlex
import sys

import pytest
import tiny
from absl import flags
from ml_collections import config_flags

from ssl_extract import config
from ssl_extract.pipeline import run as experiment
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.modules import import_modules
from ssl_extract.pipeline.validate import validate
from ssl_extract.runtime import parallel

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
PYTHON = re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r'^```bash\n(.*?)^```$', re.MULTILINE | re.DOTALL)
COMMANDS = sorted(
    {
        re.sub(r'\\\n\s*', '', line).strip()
        for page in PAGES
        for block in BLOCK.findall(page.read_text())
        for line in re.sub(r'\\\n\s*', '', block).splitlines()
    }
)
OWN = {
    'add_a_loss.md': 'losses',
    'add_a_defense.md': 'defenses',
    'add_an_attack.md': 'attacks',
}
LAUNCHES = [command for command in COMMANDS if 'launch.py' in command]


def parsed(command):
    """The config that a launch command of the docs describes, and the fields it sets."""
    words = shlex.split(command)
    values = flags.FlagValues()
    default = str(ROOT / 'experiments/quickstart.py')
    arguments = words[words.index('launch.py') :]
    arguments = [a.replace('experiments/', f'{ROOT}/experiments/') for a in arguments]
    config_flags.DEFINE_config_file(
        'config', default, flag_values=values, lock_config=True, sys_argv=arguments
    )
    flags.DEFINE_string('workdir', '', '', flag_values=values)
    assert values(arguments)[1:] == []
    return values.config, tuple(config_flags.get_override_values(values['config']))


def shrink(cfg, fixed):
    """The same experiment at the size of the tests' own, on digits; what the command set stays."""
    small = tiny.get_config()
    small.data.size = 16
    small.victim.encoder = 'resnet18(stem="patch", width=24, stages=(1,))'
    small.attack.budget, small.attack.batch_size = 128, 4  # enough for ten views of an image
    small.evaluation.tasks = ('digits(train="train[:200]", test="test[:100]")',)
    for field in [
        'data.name',
        'data.size',
        'victim.split',
        'victim.encoder',
        'victim.method',
        'victim.epochs',
        'victim.batch_size',
        'attack.split',
        'attack.budget',
        'attack.epochs',
        'attack.batch_size',
        'baselines.scratch_epochs',
        'baselines.scratch_batch_size',
        'legitimate.users',
        'legitimate.test_images',
        'evaluation.tasks',
        'evaluation.neighbors',
        'evaluation.shots',
        'training.checkpoint_every',
    ]:
        if field not in fixed:
            part, name = field.split('.')
            cfg[part][name] = small[part][name]
    cfg.data.dir = ''
    kept = ['attack.loss', 'defense', 'seed', 'attack.optimizer', 'attack.schedule']
    marked = [run for run in cfg.runs if run.get('defense') == 'dynamarks']  # of a classifier
    cfg.runs = tuple(
        {f: v for f, v in run.items() if f in kept}
        for run in cfg.runs
        if run.get('seed', 1) == 1 and run not in marked
    )
    return cfg


@pytest.fixture
def own_modules(tmp_path, monkeypatch):
    """my_losses.py, my_defenses.py and my_attacks.py, as the pages say to write them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for page, plural in OWN.items():
        monkeypatch.delitem(sys.modules, f'my_{plural}', raising=False)
        text = (ROOT / 'docs' / page).read_text()
        code = PYTHON.search(text).group(1)
        (tmp_path / f'my_{plural}.py').write_text(code)


def test_the_pages_show_commands():
    assert len(LAUNCHES) >= 7
    known = ('make ', 'python -m benchmarks.steps', 'python -m ssl_extract.studies.detection')
    assert [c for c in COMMANDS if c not in LAUNCHES and not c.startswith(known)] == []


@pytest.mark.parametrize('command', LAUNCHES)
def test_launch_commands_describe_valid_runs(command, own_modules, registries_restored):
    cfg, fixed = parsed(command)
    cfg = shrink(cfg, fixed)
    modules = import_modules(cfg.modules)
    runs = list(config.expand(cfg, fixed))
    assert runs
    for run in runs:
        validate(make_run(run, 'nowhere', parallel.data_mesh(), modules))


@pytest.mark.parametrize('page', [*OWN, 'queries.md'])
def test_the_commands_of_a_page_run(page, tmp_path, own_modules, registries_restored):
    block = BLOCK.search((ROOT / 'docs' / page).read_text()).group(1)
    cfg, fixed = parsed(re.sub(r'\\\n\s*', '', block).splitlines()[0])
    cfg = shrink(cfg, fixed)
    cfg.runs = cfg.runs[:1]
    rows = experiment.run(cfg, workdir=tmp_path / 'run', fixed=fixed)
    (surrogate,) = [r for r in rows if r['role'] == 'surrogate' and r['metric'] == 'linear_probe']
    (run,) = config.expand(cfg, fixed)
    wanted = {'loss': run.attack.loss, 'defense': run.defense, 'plan': run.attack.plan}
    assert {column: surrogate[column] for column in wanted} == wanted
    assert surrogate['queries_billed'] == cfg.attack.budget


@pytest.mark.parametrize(
    'page', [p for p in PAGES if PYTHON.search(p.read_text())], ids=lambda p: p.name
)
def test_python_blocks_run(page, registries_restored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {'__name__': '__main__'}
    for number, block in enumerate(PYTHON.findall(page.read_text())):
        exec(compile(block, f'{page.name}, python block {number}', 'exec'), namespace)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r'\]\(([^)#]+)[^)]*\)', page.read_text()):
        if '://' not in target:
            assert (page.parent / target).exists(), target


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / 'Makefile').read_text()
    for command in COMMANDS:
        if command.startswith('make '):
            assert re.search(rf'^{command.split()[1]}:', makefile, re.MULTILINE)
