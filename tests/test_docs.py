"""What the docs show works: python blocks run, commands run, links lead somewhere."""

import importlib
import pathlib
import re
import shlex
import sys

import pytest
import tiny
from ml_collections import config_flags

from ssl_extract.cli import arguments, catalog, experiments, overrides
from ssl_extract.pipeline import run as experiment

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))]
PYTHON = re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r'^```bash\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def commands_of(page):
    """The commands of a page, each on one line, without their comments."""
    lines = '\n'.join(BLOCK.findall(page.read_text())).replace('\\\n', '').splitlines()
    return [re.sub(r'\s+', ' ', line.split(' # ')[0]).strip() for line in lines]


COMMANDS = sorted({command for page in PAGES for command in commands_of(page)} - {''})
LAUNCHES = [command for command in COMMANDS if 'launch.py' in command]
OWN = {  # file -> the page that says how to write it, and which of its blocks that is
    'my_answers': ('how_to/attack_stored_embeddings.md', 0),
    'my_attacks': ('how_to/add_an_attack.md', 0),
    'my_data': ('how_to/add_a_data_set.md', 0),
    'my_defenses': ('how_to/add_a_defense.md', 0),
    'my_encoders': ('how_to/add_an_encoder.md', 0),
    'my_experiment': ('tutorial.md', 0),
    'my_loggers': ('how_to/add_a_logger.md', 0),
    'my_losses': ('how_to/add_a_loss.md', 0),
    'my_metrics': ('how_to/add_a_metric.md', 0),
    'my_ownership_tests': ('how_to/ownership.md', 0),
    'my_recoveries': ('how_to/add_a_recovery.md', 0),
    'my_service': ('how_to/attack_your_own_model.md', 1),
    'my_strategies': ('how_to/add_a_strategy.md', 0),
    'my_tasks': ('how_to/add_a_task.md', 0),
    'my_victims': ('how_to/add_a_victim.md', 0),
}
NO_PARTS = ('my_answers', 'my_experiment', 'my_service')  # which register nothing


def parsed(command):
    """The config that a launch command of the docs describes, and the fields it sets."""
    words = shlex.split(command)
    argv = [a.replace('experiments/', f'{ROOT}/experiments/') for a in words]
    argv = argv[argv.index('launch.py') :]
    values = arguments.new_values('run')
    unread = arguments.parse(values, argv, known_only=True)
    overrides.define(values, experiments.load(values.config).config, unread)
    assert arguments.parse(values, [argv[0], *unread]) == []
    return values.config, tuple(config_flags.get_override_values(values['config']))


def shrink(cfg, fixed):
    """The same experiment at the size of the tests' own, on digits; what the command set stays."""
    small = tiny.get_config()
    small.data.size = 16
    small.victim.encoder = 'resnet18(stem="patch", width=24, stages=(1,))'
    small.attack.budget, small.attack.batch_size = 128, 4  # enough for ten views of an image
    small.evaluation.tasks = ('digits(train="train[:200]", test="test[:150]")',)
    for field in [
        'data.name',
        'data.size',
        'victim.source',
        'victim.split',
        'victim.encoder',
        'victim.method',
        'victim.augmentation',
        'victim.epochs',
        'victim.batch_size',
        'attack.data',
        'attack.split',
        'attack.encoder',
        'attack.budget',
        'attack.epochs',
        'attack.batch_size',
        'baselines.scratch_epochs',
        'baselines.scratch_batch_size',
        'baselines.scratch_inputs',
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
    cfg.report.comparisons = ()  # of runs that are cut down below
    kept = ['attack.loss', 'defense', 'seed', 'attack.optimizer', 'attack.schedule']
    # Of a classifier, and of answers of 1,280 or 256 numbers.
    wide = ('dynamarks', 'top_k(k=80)', 'top_k(k=32)')
    others = [run for run in cfg.runs if run.get('defense') in wide]
    cfg.runs = tuple(
        {f: v for f, v in run.items() if f in kept}
        for run in cfg.runs
        if run.get('seed', 1) == 1 and run not in others
    )
    return cfg


@pytest.fixture
def own_modules(tmp_path, monkeypatch, registries_restored):
    """The files that the pages say to write, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module, (page, number) in OWN.items():
        monkeypatch.delitem(sys.modules, module, raising=False)
        code = PYTHON.findall((ROOT / 'docs' / page).read_text())[number]
        (tmp_path / f'{module}.py').write_text(code)
    weights = PYTHON.findall((ROOT / 'docs/how_to/attack_torch_weights.md').read_text())[0]
    exec(weights, {})  # writes a file
    yield
    for module in OWN:
        sys.modules.pop(module, None)


def test_the_pages_show_commands():
    assert len(LAUNCHES) >= 20
    known = ('make ', 'python -m benchmarks', 'python -m experiments.')
    known += ('python -m ssl_extract.studies.detection',)
    others = [c for c in COMMANDS if c not in LAUNCHES and not c.startswith(known)]
    for program, command, *words in map(shlex.split, others):
        assert program == 'ssl-extract'
        left = arguments.parse(arguments.new_values(command), [program, *words])
        assert command != 'list' or {*left} <= {*catalog.rooms()}


@pytest.mark.parametrize('most', [2, pytest.param(None, marks=pytest.mark.wide)])  # of its runs
@pytest.mark.parametrize('command', LAUNCHES)
def test_launch_commands_describe_valid_runs(command, most, own_modules, tmp_path, monkeypatch):
    monkeypatch.setenv('SERVICE_TOKEN', 'of-a-service-that-is-not-asked')
    if 'answers.npz' in command:
        importlib.import_module('my_answers')  # which writes the file
    cfg, fixed = parsed(command)
    cfg = shrink(cfg, fixed)
    cfg.runs = cfg.runs[:most]
    assert experiment.prepare(cfg, tmp_path / 'run', fixed)


def test_the_parts_of_the_how_to_pages_work_together(own_modules, tmp_path):
    c = tiny.get_config()
    c.modules = tuple(name for name in OWN if name not in NO_PARTS)
    c.data.name, c.data.size = 'stripes(noise=0.1)', 16
    c.victim.method = 'barlow_twins(hidden=8, dim=8)'
    c.defense = 'growing_noise(free=10) | round(decimals=1)'
    c.attack.encoder, c.attack.loss = 'patches(width=8)', 'huber(delta=0.5)'
    c.attack.recover = 'winsorize'
    c.evaluation.tasks = ('even_digits(labeled=100)',)
    c.training.log_to = 'losses_tsv(digits=3)'
    c.baselines.scratch_epochs, c.baselines.random = 0, False
    c.runs = ({'attack.strategy': 'unusual'}, {'attack.name': 'mixup(share=0.3)'})
    rows = experiment.run(c, workdir=tmp_path / 'run')
    stolen = [r for r in rows if (r['role'], r['metric']) == ('surrogate', 'effective_rank')]
    assert [(r['attack'], r['strategy'], r['task']) for r in stolen] == [
        ('direct', 'unusual', 'even_digits'),
        ('mixup(share=0.3)', 'random', 'even_digits'),
    ]
    assert {(r['encoder'], r['loss'], r['queries_billed']) for r in stolen} == {
        ('patches(width=8)', 'huber(delta=0.5)', 41)
    }
    folders = [path.relative_to(tmp_path / 'run').parts[0] for path in tmp_path.rglob('losses.tsv')]
    assert sorted(folders) == ['scout', 'surrogate', 'surrogate', 'victim']


@pytest.mark.wide
def test_the_commands_on_queries_run(tmp_path):
    cfg, fixed = parsed(commands_of(ROOT / 'docs/concepts/queries.md')[0])
    cfg = shrink(cfg, fixed)
    cfg.runs = cfg.runs[:1]
    cfg.baselines.scratch_epochs, cfg.baselines.random = 0, False
    rows = experiment.run(cfg, workdir=tmp_path / 'run', fixed=fixed)
    (surrogate,) = [r for r in rows if r['role'] == 'surrogate' and r['metric'] == 'linear_probe']
    assert (surrogate['plan'], surrogate['queries_billed']) == ('online', cfg.attack.budget)


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
    prose = re.sub(r'^```.*?^```$', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r'\]\(([^)#]+)[^)]*\)', prose):
        if '://' not in target:
            assert (page.parent / target).exists(), target


def test_make_targets_of_the_pages_exist():
    makefile = (ROOT / 'Makefile').read_text()
    for command in COMMANDS:
        if command.startswith('make '):
            assert re.search(rf'^{command.split()[1]}:', makefile, re.MULTILINE)
