"""Damages to every kind of file of a workdir, and what a run says and does after each."""

import functools
import json
import pathlib
import re
import shutil

import numpy as np
import small
from etils import epath

from ssl_extract import report
from ssl_extract.errors import UserError
from ssl_extract.pipeline import owner, run, stage, surrogate, victim
from ssl_extract.pipeline.sets import load_sets
from ssl_extract.report import publish

NOT_READ = ('locks', 'figures')
BOOKKEEPING = ('commit_success.txt', '_sharding', 'array_metadatas')  # of Orbax
LEFT = {
    'finished': (),
    'measured': ('runs',),
    'asked': ('runs', 'evaluation', 'surrogate/*/meta.json', 'surrogate/*/variables'),
    'training': ('runs', 'surrogate', 'answers'),
}


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flipped(path, at=0.5):
    """One bit of one byte is another."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(bytes(content))


def deleted(path):
    path.unlink()


def key_dropped(path):
    """The file is written again, whole and without its first key, array or line."""
    if path.suffix == '.npz':
        arrays = dict(np.load(path))
        np.savez(path, **{name: arrays[name] for name in sorted(arrays)[1:]})
        return
    lines = path.suffix == '.jsonl'
    value = [json.loads(text) for text in path.read_text().splitlines()] if lines else None
    value = value if lines else json.loads(path.read_text())
    if isinstance(value, list):
        first = value[0]
        first.pop(next(iter(first)))
    else:
        value.pop(next(iter(value)))
    text = ''.join(json.dumps(row) + '\n' for row in value) if lines else json.dumps(value)
    path.write_text(text)


def damages_of(path):
    """The damages that a file of this kind can have."""
    parsed = path.suffix in ('.json', '.jsonl', '.npz')
    return [truncated, flipped, deleted, *([key_dropped] if parsed else [])]


def config_of(online=False):
    c = small.get_config()
    if online:
        c.attack.plan, c.attack.query_augmentation, c.attack.budget = 'online', 'simclr', 64
        c.training.checkpoint_every = 2
    return c


def rows_of(workdir, online=False):
    """What `run.run` returns and reads for its report, without drawing; times aside."""
    one, sets, sketch = _open(workdir, online)
    where = one.workspace.folder / 'runs' / run.id_of(one, sets, sketch)
    if not (where / 'run.json').exists():
        about = {'title': 'damages', 'started': '', 'command': '', 'commit': ''}
        about |= {'versions': {}, 'devices': [], 'config': run.resolved(one, sets, sketch)}
        run.write(one, where, run.compute(one, sets, sketch), about)
    run.write_results(one.workspace.folder)
    runs = report.read_runs(workdir)
    publish.read_curves(runs)
    publish.read_views(runs)
    rows = report.tidy(runs)
    return [{name: value for name, value in row.items() if name != 'seconds'} for row in rows]


def leave_checkpoints(workdir):
    """Trains the surrogate of the online attack as far as its last checkpoint, and no further."""
    one, sets, sketch = _open(workdir, online=True)
    model, _ = victim.victim_of(one, sets)
    extraction = surrogate.extraction_of(one, sets, sketch, owner.owner_of(one, sets, model))
    folder = workdir / 'surrogate' / stage.address(one.workspace, extraction.spec)
    surrogate._steal_online(one.workspace, extraction, epath.Path(folder))


def _open(workdir, online):
    one, sets, sketch = _prepared(online)
    workspace = one.workspace._replace(folder=epath.Path(workdir))
    return one._replace(workspace=workspace), sets, sketch


@functools.cache
def _prepared(online):
    (one,) = run.prepare(config_of(online), 'nowhere')
    sets = load_sets(one)
    return one, sets, victim.sketch_of(one, sets)


def after(workdir, elsewhere, online=False):
    """The rows of a damaged workdir, and the line of the error whose advice had to be followed."""
    try:
        return rows_of(workdir, online), ''
    except UserError as error:
        line = str(error)
    assert '\n' not in line and str(workdir) in line, line
    advised = re.search(r'move (.*) (out of the workdir|elsewhere)', line)
    for folder in advised[1].split(' and '):
        shutil.move(folder, elsewhere / f'{len(list(elsewhere.iterdir()))}')
    return rows_of(workdir, online), line


def files_of(workdir):
    """The files of a workdir that a run may read."""
    paths = [path for path in sorted(pathlib.Path(workdir).rglob('*')) if path.is_file()]
    return [p for p in paths if p.relative_to(workdir).parts[0] not in NOT_READ]


def unfinished(workdir, which):
    """Takes from a finished workdir what a run that was killed earlier would not have written."""
    for pattern in LEFT[which]:
        for path in workdir.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if which == 'training':
        leave_checkpoints(workdir)


def one_of_each_kind(workdir, rooms):
    """A file of each kind below the rooms with a damage, which changes from kind to kind."""
    kinds = {}
    for path in files_of(workdir):
        name = path.relative_to(workdir)
        if name.parts[0] in rooms and path.stat().st_size and not {*name.parts} & {*BOOKKEEPING}:
            kinds.setdefault(re.sub(r'[0-9a-f]{12,}|\d+', '', str(name)), path)
    paths = enumerate(kinds.values())
    return [(path, damages_of(path)[number % len(damages_of(path))]) for number, path in paths]
