"""The plan of an experiment: runs, stages, queries, time."""

import statistics
from typing import Any

import ml_collections
from etils import epath

from ssl_extract.oracle import store
from ssl_extract.pipeline import (
    baselines,
    evaluate,
    owner,
    rows,
    stage,
    surrogate,
    users,
    victim,
)
from ssl_extract.pipeline.ask import make_plan
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.run import id_of, prepare
from ssl_extract.pipeline.sets import Sets, load_sets
from ssl_extract.pipeline.victim import Sketch
from ssl_extract.recovery import sybils
from ssl_extract.runtime import checkpoint, files

Json = dict[str, Any]


def plan(
    cfg: ml_collections.ConfigDict, workdir: epath.PathLike, fixed: tuple[str, ...] = ()
) -> list[Json]:
    """Checks all runs and describes what `run.run` would do; computes and sends nothing.

    Args:
        cfg: as made by an experiment file from `config.base()`.
        workdir: where finished stages lie.
        fixed: fields that were given on the command line; they win over `cfg.runs`.

    Returns:
        A dict for each run: `run` (its number, from 0), `id`, `name`, `done`, `stages` (dicts of
        `kind`, `address`, `done`), `queries` (the attacker's, still to send), `others` (dicts of
        `who`, `address` of the account, `queries` still to send: legitimate users, and an
        evaluation that asks the victim) and `seconds` (still to compute, from the finished stages
        of the same kinds in the workdir; None where one of them has none).

    Raises:
        UserError: something in the config is wrong.
    """
    return [plan_one(number, run) for number, run in enumerate(prepare(cfg, workdir, fixed))]


def stages_of(run: Run, sets: Sets, sketch: Sketch) -> list[tuple[str, str]]:
    """Returns (kind, address) of a run's stages before its evaluations; computes nothing.

    Args:
        run: the run.
        sets: the run's data.
        sketch: the run's victim.
    """
    c, workspace = run.config, run.workspace
    address = sketch.address or victim.address_of(run, sets)
    stages = [] if sketch.address else [('victim', address)]
    example = victim.example_victim(sketch)._replace(address=address)
    victims_owner = owner.owner_of(run, sets, example)
    spec, account = surrogate.specs_of(run, sets, sketch, victims_owner)
    stages += [(kind, spec[kind]) for kind in ('classifier', 'shadow') if kind in spec]
    if make_plan(c.attack.plan, c.attack.query_augmentation).stored:
        stages += [('answers', where) for where in _attackers_accounts(run, account)]
    if c.baselines.scratch_epochs or 'attackers_shadow' in spec:
        scratch = baselines.scratch_of(run, sets, sketch.encoder)
        stages.append(('scratch', stage.address(workspace, scratch.spec)))
    return [*stages, ('surrogate', stage.address(workspace, spec))]


def plan_one(number: int, run: Run) -> Json:
    """Describes one validated run; see `plan`.

    Args:
        number: the run's number, from 0.
        run: the run.
    """
    sets = load_sets(run)
    sketch, workdir = victim.sketch_of(run, sets), run.workspace.folder
    run_id = id_of(run, sets, sketch)
    done = (workdir / 'runs' / run_id / 'run.json').exists()
    stages, seconds, missing = [], [], run.config.attack.budget
    shares = iter(_shares(run))
    for kind, where in stages_of(run, sets, sketch):
        folder = workdir / kind / where
        if kind == 'answers':
            stored, share = store.num_stored(folder), next(shares)
            finished, missing = stored >= share, missing - min(stored, share)
        else:
            last = ('meta.json', 'result.json', 'result.npz')
            finished = any((folder / name).exists() for name in last)
        stages.append({'kind': kind, 'address': where, 'done': finished})
        if not finished and kind in ('victim', 'shadow', 'scratch', 'surrogate'):
            seconds.append(_usual_seconds(workdir / kind))
    surrogate_done = stages[-1]['done']
    return {
        'run': number,
        'id': run_id,
        'name': rows.name_of(run),
        'done': done,
        'stages': stages,
        'queries': 0 if surrogate_done else missing,
        'others': [] if done else _others(run, sets, sketch),
        'seconds': None if None in seconds else sum(seconds),
    }


def _attackers_accounts(run: Run, account: Json) -> list[str]:
    """Returns the addresses of the attacker's accounts; `account` is their common spec."""
    count = run.config.attack.accounts
    specs = [account | {'account': number} for number in range(count)] if count > 1 else [account]
    return [stage.address(run.workspace, spec) for spec in specs]


def _shares(run: Run) -> list[int]:
    """Returns how many queries each of the attacker's accounts sends."""
    a = run.config.attack
    if a.accounts == 1:
        return [a.budget]
    count = sybils.num_images(a.budget, a.accounts, a.overlap)
    return [len(share) for share in sybils.deal(count, a.accounts, a.overlap)]


def _others(run: Run, sets: Sets, sketch: Sketch) -> list[Json]:
    """Lists the other accounts at the victim, with the queries that are still to be sent."""
    c, workspace = run.config, run.workspace
    answers = workspace.folder / 'answers'
    address = sketch.address or victim.address_of(run, sets)
    accounts = []
    if c.evaluation.victim == 'ask' and not sketch.traced:
        where = stage.address(workspace, evaluate.account_spec(address))
        accounts.append(('evaluation', where, evaluate.evaluation_inputs(sets)))
    example = victim.example_victim(sketch)._replace(address=address)
    victims_owner = owner.owner_of(run, sets, example)
    for kind, defense, spec, count in users.accounts_of(run, sets, victims_owner):
        who = f'{kind} user' + (f' behind {defense}' if defense else ', undefended')
        accounts.append((who, stage.address(workspace, spec), count))
    others = [
        {'who': who, 'address': where, 'queries': max(0, count - store.num_stored(answers / where))}
        for who, where, count in accounts
    ]
    return [other for other in others if other['queries']]


def _usual_seconds(folder: epath.Path) -> float | None:
    """Returns the median time of the finished trainings of a kind; None of none."""
    seconds = []
    for path in files.find(folder, '*/meta.json'):
        with stage.remaking(path.parent):
            seconds.append(checkpoint.read_meta(path.parent).get('seconds'))
    seconds = [value for value in seconds if value]
    return statistics.median(seconds) if seconds else None
