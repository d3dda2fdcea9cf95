"""Runs whose trainings are one program end as runs do alone; what was stopped goes on."""

import functools

import numpy as np
import pytest
import small

from ssl_extract.augment import to_float
from ssl_extract.errors import UserError
from ssl_extract.pipeline import run as pipeline
from ssl_extract.pipeline import together
from ssl_extract.pipeline.stage import Optimization
from ssl_extract.runtime import loggers

pytestmark = pytest.mark.devices

SEEDS = (1, 2, 3, 4)
ALIKE = [{'seed': s, 'victim.seed': s, 'attack.learning_rate': 1e-3 * s} for s in SEEDS]
APART = [{'seed': 9, 'attack.plan': 'online'}]


def experiment(replicas):
    c = small.get_config()
    c.victim.epochs = 2
    c.attack.epochs = 2
    c.attack.loss = 'mse'
    c.training.checkpoint_every = 3
    c.training.replicas = replicas
    c.runs = (*(ALIKE if replicas > 1 else ALIKE[::3]), *APART)  # two of four tell enough
    return c


def rows_of(workdir, replicas):
    rows = pipeline.run(experiment(replicas), workdir=workdir)
    return {(r['run'], r['role'], r['task'], r['metric']): r for r in rows}


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    """The workdirs and rows of runs one by one, and of runs in which four are one program."""
    folders = [tmp_path_factory.mktemp(name) for name in ('apart', 'together')]
    found = []
    for folder, replicas in zip(folders, (1, 4), strict=True):
        trained = []
        original = together.training.fit_together
        with pytest.MonkeyPatch.context() as patch:  # counts, and does the same
            patch.setattr(
                together.training,
                'fit_together',
                lambda *args, f=original, t=trained, **how: (
                    t.append(len(args[1])),
                    f(*args, **how),
                ),
            )
            found.append((folder, rows_of(folder, replicas), trained))
    return found


def test_rows_are_those_of_single_runs(both):
    (_, apart, one_by_one), (_, joint, programs) = both
    assert one_by_one == [] and programs == [4, 4]  # victims, then surrogates
    assert joint.keys() > apart.keys() and len(apart) > 10
    assert len({run for run, *_ in joint}) == 5
    for key, row in apart.items():
        other = joint[key]
        for column in ('queries_billed', 'queries_unique', 'n', 'budget', 'stage', 'seed'):
            assert other[column] == row[column], (key, column)
        assert other['value'] == pytest.approx(row['value'], abs=0.06), key
        assert (other['flops'] or 1) == pytest.approx(row['flops'] or 1, rel=0.25)


def test_each_stage_has_its_own_folder_with_all_of_its_metrics(both):
    (apart, *_), (joint, *_) = both
    for kind in ('victim', 'surrogate'):
        names = [sorted(p.name for p in (folder / kind).iterdir()) for folder in (apart, joint)]
        assert set(names[0]) < set(names[1]) and len(names[1]) >= 5
        for name in names[0]:
            steps = [steps_of(folder / kind / name) for folder in (apart, joint)]
            assert steps[0] == steps[1] == list(range(len(steps[0])))


def steps_of(folder):
    return [row['step'] for row in loggers.read_parts(folder / 'metrics')]


def test_what_is_finished_is_not_trained_again(both):
    _, (folder, rows, _) = both
    before = {
        p: p.stat().st_mtime_ns
        for kind in ('victim', 'surrogate')
        for p in (folder / kind).rglob('*')
    }
    assert rows_of(folder, 4) == rows
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_trainings_with_other_decoders_are_not_alike():
    given = dict(recipe='of both', how=Optimization('adam', 'cosine', 1e-3, 8), num_steps=4)
    fits = [functools.partial(print, decode=decode, **given) for decode in (to_float, np.asarray)]
    other_rate = given['how']._replace(learning_rate=1e-2)
    faster = functools.partial(fits[0], how=other_rate)
    assert together._alike(fits[0]) == together._alike(faster)
    assert together._alike(fits[0]) != together._alike(fits[1])


def test_a_victim_that_is_not_finite_stops_no_run_before_its_own(tmp_path):
    c = experiment(4)
    c.victim.optimizer, c.victim.schedule = 'sgd(weight_decay=1.0, momentum=0.0)', 'constant'
    c.runs = ({'seed': 1}, {'seed': 2, 'victim.seed': 2, 'victim.learning_rate': 1e15})
    with pytest.raises(FloatingPointError, match='victim: .* lower victim.learning_rate'):
        pipeline.run(c, workdir=tmp_path)
    assert len(list(tmp_path.glob('runs/*/run.json'))) == 1


def test_replicas_are_a_multiple_of_the_devices(tmp_path):
    with pytest.raises(
        UserError, match=r'training\.replicas=3 .* over 4 devices: write a multiple'
    ):
        pipeline.run(experiment(3), workdir=tmp_path)
    assert not list(tmp_path.iterdir())
