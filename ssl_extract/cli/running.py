"""The command `run`: an experiment with its overrides."""

import sys
from typing import Any, NamedTuple

import jax
from absl import flags
from ml_collections import config_flags

import ssl_extract
from ssl_extract import report
from ssl_extract.cli import arguments, experiments, overrides, several, sweeping
from ssl_extract.errors import UserError
from ssl_extract.pipeline import plan as planning
from ssl_extract.pipeline import run as pipeline
from ssl_extract.runtime import files, hosts, memory, parallel

jax.config.config_with_absl()
_JAX_FLAGS = [flags.FLAGS[name] for name in flags.FLAGS if name.startswith('jax_')]


class Request(NamedTuple):
    """The flags of a command on an experiment, as they were read.

    Attributes:
        values: the flags; `config` is the experiment's config with the overrides.
        title: the experiment's title.
        workdir: the folder of all results.
        fixed: the fields that were given on the command line.
        words: the words that are no flags.
    """

    values: flags.FlagValues
    title: str
    workdir: str
    fixed: tuple[str, ...]
    words: list[str]


def main(argv: list[str]) -> int:
    """Runs the experiment that the flags describe, or prints its plan.

    In this process a run that fails ends the command: a mistake shows at once. With `--workers` or
    `--slurm` the other runs go on.

    Args:
        argv: the program's name and flags.

    Returns:
        The exit code: 0, or 1 where a run of `--workers` or `--slurm` failed.

    Raises:
        UserError: a flag or a field of the config is wrong.
    """
    request = read('run', argv)
    if request.words:
        raise UserError(f'unexpected {request.words[0]!r}: write --config=... and --workdir=...')
    values, workdir, fixed = request.values, request.workdir, request.fixed
    if sweeping.is_asked(values) and not values.dry_run:
        return sweeping.main(request, argv)
    check_devices()
    parallel.meet()
    versions = [ssl_extract.__version__, jax.__version__]
    config = values.config.to_json_best_effort(sort_keys=True)
    hosts.check_same('the command', [values.run_index, values.dry_run, config, versions])
    if values.dry_run:
        plans = planning.plan(values.config, workdir, fixed)
        print(describe(pipeline.pick(plans, values.run_index)))
        return 0
    pipeline.run(
        values.config,
        workdir=workdir,
        fixed=fixed,
        command=arguments.shown_command(argv),
        title=request.title,
        run_index=values.run_index,
    )
    folder = files.absolute(workdir)

    def draw() -> None:
        report.write_from(folder, [folder], request.title)

    hosts.agreed(draw)
    print(f'report: {folder / "report.html"}', file=sys.stderr)
    return 0


def read(command: str, argv: list[str]) -> Request:
    """Reads the flags of a command on an experiment, and tells JAX what they say.

    Args:
        command: 'run', or another command with the flags of an experiment.
        argv: the program's name, words and flags.

    Raises:
        UserError: a flag is unknown or wrong.
    """
    values = arguments.new_values(command, _JAX_FLAGS)
    words = arguments.parse(values, argv, known_only=True)
    if values.workdir == '':
        raise UserError('--workdir=: write a folder, or leave the flag out')
    for flag in _JAX_FLAGS:
        if flag.present:
            jax.config.update(flag.name, flag.value)
    memory.keep()
    if 'hosts' in values and values.hosts:  # before the experiment's file may call JAX
        several.join(values.hosts)
    experiment = experiments.load(values.config)
    overrides.define(values, experiment.config, words)
    words = arguments.parse(values, [argv[0], *words])
    fixed = tuple(config_flags.get_override_values(values['config']))
    workdir = values.workdir or f'runs/{experiment.title}'
    return Request(values, experiment.title, workdir, fixed, words)


def check_devices() -> None:
    """Starts JAX on the devices that it is told to use.

    Raises:
        UserError: JAX cannot use them.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f'JAX_PLATFORMS={jax.config.jax_platforms}: JAX cannot use these devices; write '
            f'JAX_PLATFORMS=cpu, or nothing to take the best ones ({str(error)[:200]})'
        ) from error


def describe(plans: list[dict[str, Any]]) -> str:
    """Describes runs: their stages, queries and time.

    >>> stages = [dict(kind='victim', address='0af3', done=True)]
    >>> plan = dict(run=0, id='77c1', name='mse', stages=stages, queries=1500, seconds=90.0)
    >>> print(describe([plan]))
      0  77c1  mse
           victim       0af3  done
           1,500 queries, about 2 min
    1 run, 1,500 queries; 1 of 1 stages done; about 2 min

    Args:
        plans: one dict a run, as `ssl_extract.pipeline.plan.plan` returns them.
    """
    lines = [line for plan in plans for line in _lines_of(plan)]
    stages = {stage['address']: stage['done'] for plan in plans for stage in plan['stages']}
    total = [f'{_count(len(plans), "run")}, {_queries(_shared_queries(plans))}']
    others = {o['address']: o['queries'] for plan in plans for o in plan.get('others', ())}
    total += [f'others ask {_queries(sum(others.values()))}'] if others else []
    total += [f'{sum(stages.values())} of {len(stages)} stages done'] if stages else []
    total += _shared_time(plans)
    return '\n'.join([*lines, '; '.join(total)])


def _lines_of(plan: dict[str, Any]) -> list[str]:
    stages = [
        f'       {stage["kind"]:<12} {stage["address"]}  {"done" if stage["done"] else "to do"}'
        for stage in plan['stages']
    ]
    facts = [_queries(plan['queries'])]
    facts += [] if plan['seconds'] is None else [f'about {_time(plan["seconds"])}']
    facts = ['finished'] if plan.get('done') else facts
    others = [f'       {o["who"]}: {_queries(o["queries"])}' for o in plan.get('others', ())]
    return [
        f'{plan["run"]:>3}  {plan["id"]}  {plan["name"]}',
        *stages,
        f'       {", ".join(facts)}',
        *others,
    ]


def _shared_queries(plans: list[dict[str, Any]]) -> int:
    """Counts the queries of all runs; runs with one account share one store."""
    queries: dict[Any, int] = {}
    for plan in plans:
        stores = [stage['address'] for stage in plan['stages'] if stage['kind'] == 'answers']
        account = (stores or [plan['run']])[0]
        queries[account] = max(queries.get(account, 0), plan['queries'])
    return sum(queries.values())


def _shared_time(plans: list[dict[str, Any]]) -> list[str]:
    """Writes the time of all runs, if it is known of all; each run counts shared stages."""
    seconds = [plan['seconds'] for plan in plans]
    if None in seconds:
        return []
    waiting = [s['address'] for plan in plans for s in plan['stages'] if not s['done']]
    bound = 'about' if len(set(waiting)) == len(waiting) else 'at most'
    return [f'{bound} {_time(sum(seconds))}']


def _queries(number: int) -> str:
    return _count(number, 'query', 'queries')


def _time(seconds: float) -> str:
    """Writes a time in its largest unit.

    >>> [_time(seconds) for seconds in (8.2, 140.0, 5400.0)]
    ['8 s', '2 min', '1.5 h']
    """
    if seconds >= 3600:
        return f'{seconds / 3600:.1f} h'
    return f'{seconds / 60:.0f} min' if seconds >= 60 else f'{seconds:.0f} s'


def _count(number: int, singular: str, plural: str = '') -> str:
    return f'{number:,} {singular if number == 1 else plural or singular + "s"}'
