"""From a config to results and a report: validate everything, run the stages, measure, write."""

import importlib
import importlib.metadata
import math
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import ml_collections
from etils import epath

from ssl_extract import attacks, config, report
from ssl_extract.errors import UserError
from ssl_extract.evaluation import assess
from ssl_extract.pipeline import access, owner, stage
from ssl_extract.pipeline import images as selection
from ssl_extract.pipeline import surrogate as extraction
from ssl_extract.pipeline import users as legitimate
from ssl_extract.pipeline.stage import Trained
from ssl_extract.pipeline.validate import validate
from ssl_extract.runtime import files, loggers, parallel, progress

COLUMNS = [
    'role',
    'attack',
    'loss',
    'plan',
    'views',
    'strategy',
    'data',
    'endpoint',
    'defense',
    'adaptive',
    'user',
    'encoder',
    'budget',
    'seed',
    'task',
    'metric',
    'value',
    'ci_low',
    'ci_high',
    'n',
    'queries_billed',
    'queries_unique',
    'queries_repeated',
    'queries_refused',
    'dollars',
    'flops',
    'seconds',
]


class Findings(NamedTuple):
    """What the runs so far have found: the rows of results.jsonl and what else the report shows."""

    rows: dict[str, list[dict[str, Any]]]  # by encoder, so that a shared one is listed once
    curves: dict[str, list[dict[str, Any]]]
    views: list[dict[str, Any]]
    bill: list[dict[str, Any]]


def run(
    cfg: ml_collections.ConfigDict,
    *,
    workdir: epath.PathLike,
    fixed: tuple[str, ...] = (),
    command: str = '',
    title: str = 'experiment',
) -> list[dict[str, Any]]:
    """Runs an experiment, or goes on with it, and returns the rows of its results.jsonl.

    Args:
        cfg: as made by an experiment file from `config.base()`.
        workdir: everything is kept here; the same workdir goes on where a killed run ended.
        fixed: fields that were given on the command line; they win over `cfg.runs`.
        command: written down in config.json and the report.
        title: of the report.

    Raises:
        UserError: something in the config is wrong; nothing was trained.
        FloatingPointError: a loss stopped being finite; what was finished before is kept.
    """
    workdir = epath.Path(workdir).expanduser().absolute()
    import_modules(cfg.modules)
    runs = list(config.expand(cfg, fixed))
    mesh = parallel.data_mesh()
    for number, one in enumerate(progress.progress(runs, desc='check', unit='run')):
        validate(one, mesh, f'runs[{number}]: ' if len(runs) > 1 else '')
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update('jax_compilation_cache_dir', str(workdir / 'compiled'))  # for restarts
    described = describe(cfg, command)
    files.write_json(workdir / 'config.json', described)

    found = Findings({}, {}, [], [])
    for number, one in enumerate(runs, 1):
        print(f'[{number}/{len(runs)}] {name_of(one)}', file=sys.stderr, flush=True)
        run_one(one, workdir, mesh, found)
        rows = [row for group in found.rows.values() for row in group]
        files.write_jsonl(workdir / 'results.jsonl', rows)
    curves = [row for curve in found.curves.values() for row in curve]
    files.write_jsonl(workdir / 'metrics.jsonl', curves)
    report.write(
        workdir,
        rows,
        config=described,
        curves=found.curves,
        views=found.views,
        bill=found.bill,
        title=title,
    )
    print(f'report: {workdir / "report.html"}', file=sys.stderr)
    return rows


def run_one(
    cfg: ml_collections.ConfigDict, workdir: epath.Path, mesh: jax.sharding.Mesh, found: Findings
) -> None:
    """Runs one config's stages and adds what they found; finished stages are only read."""
    victim = stage.victim(cfg, workdir, mesh)
    input_shape = selection.load_pool(cfg).inputs.shape[1:]
    theirs = measure(cfg, victim, workdir, mesh)
    add_rows(found, victim, theirs, seed=cfg.victim.seed)
    add_curve(found, 'victim', victim)
    add_view(found, 'victim', cfg, theirs)

    stolen = extraction.surrogate(cfg, victim, workdir, mesh)
    attacked = dict(
        attack=cfg.attack.name,
        loss=cfg.attack.loss,
        plan=cfg.attack.plan,
        views=views_of(cfg),
        strategy=cfg.attack.strategy,
        data=cfg.attack.data or cfg.data.name,
        endpoint=attacks.endpoint_of(cfg.attack.name),
        defense=cfg.defense,
        adaptive=adaptive_of(cfg),
        budget=cfg.attack.budget,
        seed=cfg.seed,
        dollars=stolen.bill.billed * cfg.cost.dollars_per_1000_queries / 1000,
    )
    measured = measure(cfg, stolen, workdir, mesh, victim)
    marks = owner.look_for_mark(cfg, victim, stolen, workdir, mesh)
    add_rows(found, stolen, measured._replace(measured=measured.measured + marks), **attacked)
    add_curve(found, name_of(cfg).replace(', ', ': ', 1), stolen)
    add_view(found, f'surrogate, {name_of(cfg)}', cfg, measured)
    found.bill.append(
        {
            'account': stage.address(access.account_of(cfg, victim)),
            'run': name_of(cfg),
            'budget': cfg.attack.budget,
            'plan': cfg.attack.plan,
            **stolen.bill._asdict(),
        }
    )
    for name, rows in legitimate.rows(cfg, victim, workdir, mesh).items():
        found.rows.setdefault(name, [{c: row.get(c) for c in COLUMNS} for row in rows])
    if cfg.baselines.scratch_epochs:
        alone = stage.scratch(cfg, victim.encoder, workdir, mesh)
        images = None if cfg.attack.plan == 'online' else cfg.attack.budget
        measured = measure(cfg, alone, workdir, mesh, victim)
        own = cfg.attack.data or cfg.data.name
        add_rows(found, alone, measured, budget=images, data=own, seed=cfg.seed)
        add_curve(found, f'from scratch: {images or "all"} images, seed {cfg.seed}', alone)
    if cfg.baselines.random:
        untrained = stage.random(cfg, victim.encoder, input_shape)
        measured = measure(cfg, untrained, workdir, mesh, victim)
        add_rows(found, untrained, measured, seed=cfg.seed)


def measure(
    cfg: ml_collections.ConfigDict,
    trained: Trained,
    workdir: epath.Path,
    mesh: jax.sharding.Mesh,
    victim: Trained | None = None,
) -> assess.Assessment:
    """Assesses an encoder, beside the victim if given, or reads what was measured before."""
    spec = {
        'stage': 'evaluation',
        'encoder': trained.address,
        'fidelity_to': None if victim is None else victim.address,
        **cfg.evaluation.to_dict(),
        'tasks': selection.describe_tasks(cfg),
    }
    folder = workdir / 'evaluation' / stage.address(spec)
    if not (folder / 'measured.json').exists():
        print(f'  evaluate {trained.role}', file=sys.stderr, flush=True)
        made = assess.assess(
            stage.make_encoder(trained.encoder).apply,
            trained.variables,
            selection.load_tasks(cfg),
            classifier=stage.outputs(trained) if 'classifier' in dict(trained.heads) else None,
            victim=None if victim is None else measure(cfg, victim, workdir, mesh).arrays,
            probe=cfg.evaluation.probe,
            neighbors=cfg.evaluation.neighbors,
            shots=cfg.evaluation.shots,
            mesh=mesh,
        )
        kept = made.arrays if victim is None else {'projection': made.arrays['projection']}
        files.write_json(folder / 'spec.json', spec)
        files.write_npz(folder / 'arrays.npz', **kept)
        files.write_json(folder / 'measured.json', made.measured)
    return assess.Assessment(
        files.read_json(folder / 'measured.json'), files.read_npz(folder / 'arrays.npz')
    )


def add_rows(found: Findings, trained: Trained, made: assess.Assessment, **condition: Any) -> None:
    """Adds an encoder's rows, once."""
    bill = {} if trained.bill is None else trained.bill._asdict()
    if trained.role in ('scratch', 'random'):
        bill = dict(billed=0, unique=0, repeated=0, refused=0)
    common = {
        'role': trained.role,
        'encoder': trained.encoder,
        'seconds': trained.seconds,
        'flops': trained.flops,
        **{f'queries_{name}': count for name, count in bill.items()},
        **condition,
    }
    noticed = [
        {'metric': f'noticed.{name}', 'value': value}
        for name, value in (trained.noticed or {}).items()
        if math.isfinite(value)  # not so before there was anything to notice
    ]
    rows = [{c: (common | m).get(c) for c in COLUMNS} for m in [*made.measured, *noticed]]
    found.rows.setdefault(f'{trained.role} {trained.address}', rows)


def add_curve(found: Findings, name: str, trained: Trained) -> None:
    """Adds the training curve, if the encoder was trained here."""
    curve = loggers.read_parts(trained.folder / 'metrics')
    if curve:
        who = {'stage': trained.role, 'address': trained.address}
        found.curves.setdefault(name, [who | row for row in curve])


def add_view(found: Findings, title: str, cfg, made: assess.Assessment) -> None:
    """Adds a two-dimensional view, for the victim and a few surrogates."""
    if len(found.views) < 4 and title not in [view['title'] for view in found.views]:
        points = made.arrays['projection']
        labels = selection.load_tasks(cfg)[0].test.labels[: len(points)]
        found.views.append({'title': title, 'points': points, 'labels': labels})


def views_of(cfg: ml_collections.ConfigDict) -> str:
    """The augmentations of a run, in a few words."""
    asked, seen = cfg.attack.query_augmentation, cfg.attack.student_augmentation
    words = [f'asked {asked}'] if asked != 'none' else []
    return ', '.join([*words, f'seen {seen}'] if seen != 'none' else words)


def adaptive_of(cfg: ml_collections.ConfigDict) -> str:
    """What a run does against a defense, in a few words (its plan and strategy apart)."""
    words = [f'{cfg.attack.accounts} accounts'] if cfg.attack.accounts > 1 else []
    return ', '.join([*words, cfg.attack.recover] if cfg.attack.recover else words)


def name_of(cfg: ml_collections.ConfigDict) -> str:
    """A run in a few words."""
    words = [cfg.attack.name, cfg.attack.loss, f'{cfg.attack.budget} queries']
    words += [cfg.attack.plan] if cfg.attack.plan != 'once' else []
    words += [cfg.attack.strategy] if cfg.attack.strategy != 'random' else []
    words += [f'asked {cfg.attack.data}'] if cfg.attack.data else []
    words += [cfg.attack.encoder] if cfg.attack.encoder else []
    words += [f'behind {cfg.defense}'] if cfg.defense else []
    words += [adaptive_of(cfg)] if adaptive_of(cfg) else []
    return ', '.join([*words, f'seed {cfg.seed}'])


def import_modules(modules: tuple[str, ...]) -> None:
    """Imports the user's own modules, from the working directory too.

    Raises:
        UserError: there is no such module.
    """
    if modules and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise UserError(
                f'modules: there is no module {name!r} in {os.getcwd()} or on PYTHONPATH; write '
                'its name without .py'
            ) from None


def describe(cfg: ml_collections.ConfigDict, command: str) -> dict[str, Any]:
    """What config.json says: the config, and on what it ran."""
    versions = {
        name: importlib.metadata.version(name) for name in ('jax', 'flax', 'optax', 'numpy')
    }
    return {
        'command': command,
        'commit': _commit(),
        'versions': {'python': platform.python_version(), **versions},
        'devices': [str(device.device_kind) for device in jax.devices()],
        'config': cfg.to_dict(),
    }


def _commit() -> str:
    folder = pathlib.Path(__file__).parent
    try:
        asked = subprocess.run(
            ['git', 'rev-parse', 'HEAD'], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except OSError:
        return 'unknown'
    return asked.stdout.strip() or 'unknown'
