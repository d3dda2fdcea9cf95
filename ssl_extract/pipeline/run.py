"""Experiments: validation, stages and rows of every run."""

import functools
import hashlib
import json
import os
import sys
import time
from typing import Any

import ml_collections
from etils import epath

from ssl_extract import attacks, config, evaluation, report
from ssl_extract.errors import UserError
from ssl_extract.evaluation.assess import Assessment
from ssl_extract.pipeline import (
    baselines,
    clips,
    comparisons,
    evaluate,
    floors,
    owner,
    ownership,
    provenance,
    rows,
    services,
    stage,
    surrogate,
    together,
    triggers,
    users,
    victim,
)
from ssl_extract.pipeline import sets as sets_lib
from ssl_extract.pipeline.context import Run, check_workdir, make_run
from ssl_extract.pipeline.finished import Results, now, write, write_results, write_results_timed
from ssl_extract.pipeline.modules import import_modules
from ssl_extract.pipeline.sets import Sets, load_sets
from ssl_extract.pipeline.stage import StageRecord, Trained
from ssl_extract.pipeline.validate import validate
from ssl_extract.pipeline.victim import Sketch
from ssl_extract.report import families
from ssl_extract.runtime import files, hosts, parallel, programs, progress

Json = dict[str, Any]


def run(
    cfg: ml_collections.ConfigDict,
    *,
    workdir: epath.PathLike,
    fixed: tuple[str, ...] = (),
    command: str = '',
    title: str = 'experiment',
    run_index: int | None = None,
) -> list[Json]:
    """Runs or resumes an experiment, and returns the tidy rows of its runs.

    A run is written to `workdir/runs/ID` when it is finished, and never again; results.jsonl is of
    all finished runs of the workdir. The report is drawn by `report.write_from`.

    Args:
        cfg: as made by an experiment file from `config.base()`.
        workdir: keeps all results; the same workdir goes on where a killed run ended.
        fixed: fields that were given on the command line; they win over `cfg.runs`.
        command: the command line, which each run and the report show.
        title: the report's title.
        run_index: the number of the only run to compute, as `plan` lists them; None is all.

    Raises:
        UserError: something in the config is wrong; nothing was trained.
        FloatingPointError: a loss stopped being finite; what was finished before is kept.
    """
    programs.keep()
    runs = prepare(cfg, workdir, fixed)
    if hosts.number() > 1:
        hosts.check_shared(runs[0].workspace.folder)
        hosts.check_same('the data or a module', [*map(_id_of, runs)])
    list_comparisons(cfg, fixed, runs)
    runs = pick(runs, run_index)
    folder, ids = runs[0].workspace.folder, []
    described = {'title': title, **provenance.describe(command)}
    due = 0.0

    def write_results_if_due() -> None:
        nonlocal due
        if time.monotonic() > due and files.find(folder / 'runs', '*/run.json'):
            due = write_results_timed(folder)

    hosts.agreed(write_results_if_due)  # a killed process may have left a finished run out
    if cfg.training.replicas > 1:
        paths = hosts.agreed(lambda: [*map(str, files.find(folder / 'runs', '*/run.json'))])
        finished = {epath.Path(path).parent.name for path in paths}
        together.ahead([r for r in runs if _id_of(r) not in finished])
    for number, current in enumerate(runs, 1):
        ids.append(finish(current, described, f'[{number}/{len(runs)}]'))
        hosts.agreed(write_results_if_due)
    return report.tidy([finished for finished in write_results(folder) if finished.id in ids])


def finish(run: Run, described: Json, place: str, expected: str = '') -> str:
    """Computes a run and writes it, unless it was finished before; returns the run's id.

    Args:
        run: a validated run.
        described: the title of the experiment, and the description of this process.
        place: the beginning of the line on stderr that names the run, e.g. '[1/3]'.
        expected: the id that the run had when it was planned; '' is any.

    Raises:
        UserError: the run has another id than expected.
        FloatingPointError: a loss stopped being finite.
    """
    name, sets = rows.name_of(run), load_sets(run)
    sketch = victim.sketch_of(run, sets)
    run_id = id_of(run, sets, sketch)
    if expected not in ('', run_id):
        raise UserError(
            f'{name} is run {run_id} now, and was {expected}: the experiment, its modules or its '
            'data changed meanwhile; give the same command again'
        )
    where = run.workspace.folder / 'runs' / run_id
    if hosts.agreed((where / 'run.json').exists):
        print(f'{place} {name}: finished before', file=sys.stderr, flush=True)
        return run_id
    print(f'{place} {name}', file=sys.stderr, flush=True)
    about = {**described, 'started': now()}
    about['config'] = resolved(run, sets, sketch)
    about['notes'] = victim.notes_of(run, sets)
    about['defaults'] = provenance.defaults(about['config'])
    shown = {'clips': clips.spectrograms_of(run, sets)}
    shown['triggers'] = triggers.pictures_of(run, sets)
    about['shown'] = {kind: where for kind, where in shown.items() if where is not None}
    about['studied'] = victim.studied(sets, sketch)
    results = compute(run, sets, sketch)
    hosts.agreed(functools.partial(write, run, where, results, about))
    return run_id


def list_comparisons(
    cfg: ml_collections.ConfigDict, fixed: tuple[str, ...], runs: list[Run]
) -> None:
    """Writes the comparisons that a config lists to the workdir, before anything runs.

    Args:
        cfg: the experiment's config.
        fixed: fields that were given on the command line.
        runs: all runs of the config.
    """
    if cfg.report.comparisons:
        family = comparisons.family_of(cfg, fixed, runs, [*map(_id_of, runs)], _tasks_of(runs))
        hosts.agreed(lambda: families.write(runs[0].workspace.folder, family, now()))


def prepare(
    cfg: ml_collections.ConfigDict, workdir: epath.PathLike, fixed: tuple[str, ...] = ()
) -> list[Run]:
    """Expands a config to its runs and validates all of them; computes nothing.

    What the sets have in common without being refused, and what a stored victim is, is said on
    stderr.

    Args:
        cfg: as made by an experiment file from `config.base()`.
        workdir: the folder of all results.
        fixed: fields that were given on the command line; they win over `cfg.runs`.

    Raises:
        UserError: something in the config is wrong; the message names the run.
    """
    runs = make_runs(cfg, workdir, fixed)
    if cfg.report.comparisons:
        numbers = [*map(str, range(len(runs)))]  # in place of ids
        comparisons.family_of(cfg, fixed, runs, numbers, _tasks_of(runs))
    notes: dict[str, None] = {}  # each once, in order
    for number, run in enumerate(progress.progress(runs, desc='check', unit='run')):
        validate(run, f'runs[{number}]: ' if len(runs) > 1 else '')
        notes |= dict.fromkeys(victim.notes_of(run, load_sets(run)))
    for note in notes:
        print(f'note: {note}', file=sys.stderr, flush=True)
    return runs


def make_runs(
    cfg: ml_collections.ConfigDict, workdir: epath.PathLike, fixed: tuple[str, ...] = ()
) -> list[Run]:
    """Expands a config to its runs, which are not validated yet.

    Args:
        cfg: as made by an experiment file from `config.base()`.
        workdir: the folder of all results.
        fixed: fields that were given on the command line; they win over `cfg.runs`.

    Raises:
        UserError: a field, a module or the workdir is wrong.
    """
    config.check(cfg)
    forget()  # files may have changed since the last experiment of this process
    check_workdir(workdir)
    modules, mesh = import_modules(cfg.modules), parallel.data_mesh()
    together.check(cfg.training.replicas, mesh.size)
    return [make_run(fields, workdir, mesh, modules) for fields in config.expand(cfg, fixed)]


def forget() -> None:
    """Lets go of the data, the victims and the services that this process keeps in memory."""
    sets_lib.forget()
    victim.forget()
    services.forget()


def pick(runs: list[Any], run_index: int | None) -> list[Any]:
    """Returns the run of a number, from 0, or all runs where the number is None.

    Args:
        runs: the runs, or a dict for each.
        run_index: the number; None is all.

    Raises:
        UserError: there is no run of that number.
    """
    if run_index is None:
        return runs
    if not 0 <= run_index < len(runs):
        raise UserError(f'run_index={run_index}: write a number from 0 to {len(runs) - 1}')
    return [runs[run_index]]


def id_of(run: Run, sets: Sets, sketch: Sketch) -> str:
    """Returns a run's id: the hash of all that its results depend on.

    Args:
        run: the run.
        sets: the run's data.
        sketch: the run's victim.
    """
    whole = {'version': stage.VERSION, 'config': resolved(run, sets, sketch)}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]


def _tasks_of(runs: list[Run]) -> list[str]:
    return [task.name for task in load_sets(runs[0]).tasks]


def _id_of(run: Run) -> str:
    sets = load_sets(run)
    return id_of(run, sets, victim.sketch_of(run, sets))


def resolved(run: Run, sets: Sets, sketch: Sketch) -> Json:
    """Returns a run's config as far as its results depend on it, with contents.

    The folder of the data and the fields of `training` are left out: results do not depend on
    them. The field `content` holds the hashes of the data, of the user's modules and of a loaded
    victim, by name. Two runs with the same names differ in `content` only if a content changed.

    Args:
        run: the run.
        sets: the run's data.
        sketch: the run's victim.
    """
    fields = run.config.to_dict()
    del fields['data']['dir'], fields['training'], fields['modules']
    size = f' at {run.config.data.size}' if run.config.data.size else ''
    content = {spec['name'] + size: spec['content'] for spec in (sets.victim_spec, sets.pool_spec)}
    for task in sets.tasks_spec:
        for part in ('train', 'test'):
            name = f'{task["name"]} {part}: {task[part]["name"]}{size}'
            content[name] = task[part]['content']
    modules = run.workspace.modules
    content |= {f'module {name}': source for name, source in modules.sources}
    metrics = list(evaluation.METRICS)
    specs = (sets.victim_spec, sets.pool_spec, sets.tasks_spec)
    named = modules.used_in({'fields': fields, 'metrics': metrics, 'sets': specs})
    content |= {name: named[name] for name, _ in modules.unlisted if name in named}
    content |= {run.config.victim.source: sketch.address} if sketch.address else {}
    return fields | {'content': content}


def compute(run: Run, sets: Sets, sketch: Sketch) -> Results:
    """Computes one run's stages; finished stages are only read.

    Args:
        run: the run.
        sets: the run's data.
        sketch: the victim that was checked.

    Raises:
        UserError: the victim's source changed since it was checked.
    """
    c, workspace = run.config, run.workspace
    results = Results([], [], [], [])
    model, record = victim.victim_of(run, sets)
    if sketch.address not in ('', model.address):
        raise UserError(
            f'victim.source={c.victim.source!r} became another victim meanwhile; start again'
        )
    subject, bill = evaluate.victim_subject(run, sets, model)
    beside = subject and evaluate.measure(run, sets, subject)
    if beside:
        record = record._replace(bill=bill)
        measured = beside[1].measured
        results.rows.extend(rows.encoder_rows(record, model.name, measured, seed=c.victim.seed))
        results.views.append({'title': 'victim', 'folder': f'evaluation/{beside[0]}'})
    _add_curve(results, run, 'victim', record)

    victims_owner = owner.owner_of(run, sets, model)
    extraction = surrogate.extraction_of(run, sets, sketch, victims_owner)
    stolen = surrogate.steal(workspace, extraction)
    condition = rows.condition_of(run, stolen.record.bill.billed)
    marks = ownership.look_for_mark(
        workspace, victims_owner, stolen, extraction.attacker.service.spec
    )
    name = rows.name_of(run)
    classifies = attacks.ATTACKS.traits(c.attack.name).classifies
    where = _measure(run, sets, results, stolen, beside, marks, condition, classifies)
    _add_curve(results, run, rows.curve_name_of(run), stolen.record)
    results.views.append({'title': f'surrogate, {name}', 'folder': f'evaluation/{where}'})
    results.bills.append(
        {
            'account': stage.address(workspace, extraction.attacker.spec),
            'run': name,
            'budget': c.attack.budget,
            'plan': c.attack.plan,
            **stolen.record.bill._asdict(),
        }
    )
    for group in users.user_rows(run, sets, victims_owner).values():
        results.rows.extend(group)
    results.rows.extend(floors.floor_rows(run, sets, sketch, victims_owner))
    if c.baselines.scratch_epochs:
        scratch = baselines.pretrain_scratch(
            workspace, baselines.scratch_of(run, sets, sketch.encoder)
        )
        stored = extraction.attacker.plan.stored
        count = c.baselines.scratch_inputs or (c.attack.budget if stored else None)
        scratch_condition = {'budget': count, 'data': c.attack.data or c.data.name, 'seed': c.seed}
        _measure(run, sets, results, scratch, beside, [], scratch_condition)
        title = f'from scratch: {count or "all"} inputs, seed {c.seed}'
        _add_curve(results, run, title, scratch.record)
    if c.baselines.random:
        encoder = c.attack.encoder or sketch.encoder
        untrained = baselines.untrained(workspace, encoder, sketch.input_shape, c.seed)
        _measure(run, sets, results, untrained, beside, [], {'seed': c.seed})
    return results


def _measure(
    run: Run,
    sets: Sets,
    results: Results,
    encoder: Trained,
    beside: tuple[str, Assessment] | None,
    marks: list[Json],
    condition: Json,
    classifies: bool = False,
) -> str:
    """Adds the rows of one encoder, and returns the address of its evaluation."""
    subject = evaluate.subject_of(encoder, classifies=classifies)
    where, assessment = evaluate.measure(run, sets, subject, beside)
    measured = assessment.measured + marks
    results.rows.extend(
        rows.encoder_rows(encoder.record, encoder.encoder.spec, measured, **condition)
    )
    return where


def _add_curve(results: Results, run: Run, name: str, record: StageRecord) -> None:
    """Adds the training curve of an encoder, if its folder holds one."""
    if record.folder and (record.folder / 'metrics').exists():
        folder, workdir = record.folder / 'metrics', run.workspace.folder
        inside = folder.is_relative_to(workdir)
        where = os.fspath(folder.relative_to(workdir) if inside else folder)
        curve = {'name': name, 'role': record.role, 'stage': record.address, 'folder': where}
        parts = [path.name for path in files.find(folder, 'part-*')]
        results.curves.append(curve | {'parts': parts})
