"""One run in several processes here: what one process computes, no share or file twice."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import several
import small
from processes import ROOT, finish, kill_when, results, start

from ssl_extract.cli import failures
from ssl_extract.cli import several as flag
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.pipeline import run
from ssl_extract.runtime import hosts

pytestmark = pytest.mark.devices

# One process comes to a maximum later than Gloo gives for the first exchange.
LATE = """
import sys, time
import jax, jax.numpy as jnp, numpy as np
from ssl_extract.runtime import hosts, parallel

hosts.join(sys.argv[1], int(sys.argv[2]), 2)
parallel.meet()
mesh = parallel.data_mesh()
rows = parallel.put(np.arange(2.0 * mesh.size), mesh)
time.sleep(40 * hosts.index())
print(float(jax.jit(jnp.max, out_shardings=parallel.replicated(mesh))(rows)))
"""
TINY, SEVERAL = 'tests/helpers/tiny.py', 'tests/helpers/several.py'


def address():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return f'127.0.0.1:{free.getsockname()[1]}'


def start_all(workdir, number, *flags, **kwargs):
    where = address()
    return [
        start(workdir, f'--hosts={where},{index},{number}', *flags, **kwargs)
        for index in range(number)
    ]


def encoders(workdir):
    """Variables by the address of the stage."""
    folders = [f for kind in ('victim', 'surrogate', 'scratch') for f in workdir.glob(f'{kind}/*')]
    loaded = {folder.name: trained.load(folder) for folder in folders}
    return {name: jax.device_get((e.variables, e.head_variables)) for name, e in loaded.items()}


def assert_same_encoders(here, there):
    one, other = encoders(here), encoders(there)
    assert one.keys() == other.keys() and one
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, other)


def assert_close(here, there, without=()):
    """The same rows but for times and some columns, with values up to rounding."""
    assert len(here) == len(there) > 0
    for one, other in zip(here, there, strict=True):
        one, other = (
            {k: row.get(k) for k in {*one, *other}.difference(without)} for row in (one, other)
        )
        floats = [k for k, v in one.items() if isinstance(v, float)]
        assert [one.pop(k) for k in floats] == pytest.approx(
            [other.pop(k) for k in floats], rel=1e-4, abs=1e-6
        )
        assert one == other


@pytest.fixture(scope='module')
def in_two(tmp_path_factory):
    """(The folder, its workdir, what each said) of two processes with two devices each."""
    folder = tmp_path_factory.mktemp('hosts')
    os.environ['NOTES'] = str(folder)
    try:
        processes = start_all(folder / 'runs', 2, config=SEVERAL, devices=2)
    finally:
        del os.environ['NOTES']
    return folder, folder / 'runs', [finish(process) for process in processes]


def test_two_processes_compute_what_one_does(in_two, tmp_path):
    _, workdir, _ = in_two
    run.run(small.get_config(), workdir=tmp_path, title='several')  # on the same number of devices
    assert_close(results(workdir), results(tmp_path))
    assert_same_encoders(workdir, tmp_path)


def test_each_process_sends_its_share_and_gets_the_whole(in_two):
    folder, _, _ = in_two
    notes = [json.loads((folder / f'process-{i}.json').read_text()) for i in (0, 1)]
    rows = several.ROWS.tolist()
    order = [7, 1, 6, 0, 5, 2, 4, 3]
    assert [note.pop('read') for note in notes] == [order[:4], order[4:]]
    assert [note.pop('put') for note in notes] == [
        [rows[:2], rows[2:4]],
        [rows[4:6], rows[6:]],
    ]
    assert [note.pop('alone') for note in notes] == [0, 1]
    shuffled = [rows[i] for i in order]
    words = jax.random.key_data(jax.random.key(3)).tolist()
    seen = {'devices': 4, 'put_again': rows, 'batch': shuffled, 'taken': shuffled}
    seen |= {'stacked': rows[:4], 'stacked_shards': 2, 'key': words}
    assert notes == [seen | {'agreed': 0, 'drawn': [0, 0], 'text': 'process 0'}] * 2


def test_the_first_process_speaks_and_writes(in_two):
    _, workdir, (first, second) = in_two
    assert '  evaluate surrogate\n' in first and 'report: ' in first
    assert [line for line in second.splitlines() if not line.startswith('[Gloo]')] == []
    assert not [*workdir.rglob('*process_1*'), *workdir.rglob('.hosts-*')]
    (holder,) = {path.read_text() for path in workdir.glob('locks/*.holder')}
    assert holder.split()[0].isdigit()


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ('2', r'--hosts=2: write auto, or ADDRESS:PORT,INDEX,NUMBER: .*as in 10\.0\.0\.1:8476,0,2'),
        ('here,0,2', '--hosts=here,0,2: write auto'),
        ('127.0.0.1:1,0,0', 'write auto'),
    ],
)
def test_a_wrong_flag_is_one_line(value, message):
    with pytest.raises(UserError, match=message):
        flag.join(value)


def test_an_index_out_of_range_is_refused():
    with pytest.raises(UserError, match='process 2 of 2: write an index from 0 to 1'):
        hosts.join('127.0.0.1:1', 2, 2)
    assert hosts.number() == 1


def test_a_process_that_finds_no_other_ends_in_one_line():
    code = 'from ssl_extract.cli import several; several.join("127.0.0.1:9,1,2", timeout=1)'
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode != 0
    assert done.stderr == f'error: {hosts.unmet("127.0.0.1:9", 1, 2, 1)}\n'


def test_a_dead_process_is_told_from_an_error(monkeypatch):
    lost = ValueError('UNKNOWN: Gloo all-reduce failed: Connection closed by peer [::1]:15085')
    assert failures.explain(lost) is None  # there is one process
    monkeypatch.setattr(hosts, '_joined', hosts._Joined(1, 2))
    assert failures.explain(lost) == failures.LOST
    assert failures.explain(ValueError('shapes do not match')) is None
    assert hosts.named('error: x') == 'process 1 of 2: error: x'


@pytest.mark.wide
@pytest.mark.parametrize('number', [2, 4])
def test_processes_of_one_device_compute_what_one_process_does(tmp_path, number):
    together = [finish(p) for p in start_all(tmp_path / 'all', number, config=TINY, devices=1)]
    finish(start(tmp_path / 'one', config=TINY, devices=number))
    if number == 2:  # a sum of two has one order
        assert results(tmp_path / 'all') == results(tmp_path / 'one')
    assert_close(results(tmp_path / 'all'), results(tmp_path / 'one'))
    assert_same_encoders(tmp_path / 'all', tmp_path / 'one')
    assert 'error' not in ''.join(together)


@pytest.mark.wide
def test_replicas_are_shared_out_over_processes(tmp_path):
    given = dict(config='tests/helpers/alike.py', devices=1)
    finish_all(start_all(tmp_path / 'all', 2, **given))
    finish(start(tmp_path / 'one', **given))
    one = results(tmp_path / 'one')
    assert_close(results(tmp_path / 'all'), one, without=['flops'])
    assert_same_encoders(tmp_path / 'all', tmp_path / 'one')
    assert len({row['stage'] for row in one if row['role'] in ('victim', 'surrogate')}) == 4


@pytest.mark.wide
@pytest.mark.parametrize('victim', [0, 1])
def test_killed_in_training_all_end_and_go_on(tmp_path, victim):
    flags = ('--config.victim.epochs=30', '--config.training.checkpoint_every=4')
    given = dict(config=TINY, devices=1)
    processes = start_all(tmp_path / 'killed', 2, *flags, **given)
    survivor = processes[1 - victim]
    assert kill_when(processes[victim], tmp_path / 'killed', 'victim/*/checkpoints/4')
    output, _ = survivor.communicate(timeout=90)
    assert survivor.returncode not in (0, None)
    line = f'process {1 - victim} of 2: {failures.LOST}'
    assert output.splitlines()[-1] == line and output.count('error') == 1
    said = finish_all(start_all(tmp_path / 'killed', 2, *flags, **given))
    assert 'goes on from step ' in said[0]
    finish_all(start_all(tmp_path / 'whole', 2, *flags, **given))
    assert results(tmp_path / 'killed') == results(tmp_path / 'whole')
    one, other = encoders(tmp_path / 'killed'), encoders(tmp_path / 'whole')
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.wide
def test_a_process_that_compiles_for_long_is_waited_for():
    command, where = [sys.executable, '-c', LATE, address()], dict(cwd=ROOT, text=True)
    processes = [
        subprocess.Popen([*command, str(index)], stdout=subprocess.PIPE, **where)
        for index in (0, 1)
    ]
    assert len({finish(process).splitlines()[-1] for process in processes}) == 1


@pytest.mark.wide
def test_one_to_eight_devices_give_the_same_results(tmp_path):
    for devices in (1, 2, 4, 8):
        workdir = tmp_path / str(devices)
        finish(start(workdir, config='tests/helpers/small.py', devices=devices))
        # Operations are counted on each device, with what is padded there.
        assert_close(results(workdir), results(tmp_path / '1'), without=['flops'])
        assert_same_encoders(workdir, tmp_path / '1')


@pytest.mark.wide
def test_other_processes_are_refused(tmp_path):
    where = address()
    processes = [
        start(tmp_path, f'--hosts={where},{index},2', *flags, config=TINY, devices=1)
        for index, flags in enumerate([(), ('--config.seed=2',)])
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert 'the command of process 1 differs from that of process 0' in said[1]
    assert [process.returncode for process in processes] == [2, 2]


def finish_all(processes):
    return [finish(process) for process in processes]
