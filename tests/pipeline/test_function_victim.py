"""A plain NumPy function as the victim of a whole run: what it is asked and what is shown of it."""

import json
import sys

import numpy as np
import projecting
import pytest
import tiny

from ssl_extract import config, data, victims
from ssl_extract.errors import UserError
from ssl_extract.evaluation.assess import assess
from ssl_extract.oracle import remote
from ssl_extract.pipeline import evaluate, run
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.sets import load_sets, pool_order
from ssl_extract.pipeline.validate import validate
from ssl_extract.pipeline.victim import sketch_of
from ssl_extract.runtime import files, loggers, parallel

SOURCE = f'function("projecting:answer", dim={projecting.DIM})'
BUDGET = 41


def config_of(**fields):
    c = tiny.get_config()
    c.victim.source = SOURCE
    c.attack.name, c.attack.loss = 'direct', 'mse'
    c.attack.encoder = 'resnet18(stem="patch", width=4, stages=(1,))'
    c.attack.budget, c.attack.epochs, c.attack.learning_rate = BUDGET, 20, 1e-2
    c.baselines.scratch_epochs, c.baselines.random = 0, False
    c.evaluation.shots = 0
    c.runs = ()
    for field, value in fields.items():
        c.update_from_flattened_dict({field.replace('__', '.'): value})
    return c


def rows_of(workdir, **fields):
    """(The rows of the one run, the inputs that the victim saw in each call)."""
    projecting.seen.clear()
    (one,) = run.prepare(config_of(**fields), workdir)
    assert not projecting.seen  # validation asks nothing
    sets = load_sets(one)
    rows = run.compute(one, sets, sketch_of(one, sets)).rows
    return rows, list(projecting.seen)


def sets_of(**fields):
    (cfg,) = config.expand(config_of(**fields))
    return load_sets(make_run(cfg, 'nowhere', parallel.data_mesh()))


def of(rows, role):
    return {row['metric']: row for row in rows if row['role'] == role}


@pytest.fixture(scope='module')
def unevaluated(tmp_path_factory):
    """(rows, calls, workdir) of a run whose victim is not measured."""
    workdir = tmp_path_factory.mktemp('function')
    return *rows_of(workdir), workdir


def test_it_sees_exactly_the_budget_and_no_padding(unevaluated):
    _, calls, _ = unevaluated
    assert [len(inputs) for inputs in calls] == [16, 16, 9]
    pool = sets_of().pool.inputs
    chosen = pool[pool_order(len(pool), 1)[:BUDGET]] / np.float32(255)
    np.testing.assert_allclose(np.concatenate(calls), chosen, rtol=1e-6)


def test_a_surrogate_is_trained_on_its_answers(unevaluated):
    rows, _, workdir = unevaluated
    surrogate = of(rows, 'surrogate')
    assert surrogate['linear_probe']['n'] == 100
    for row in surrogate.values():
        bill = [row[f'queries_{name}'] for name in ('billed', 'unique', 'repeated', 'refused')]
        assert bill == [BUDGET, BUDGET, 0, 0]
    (folder,) = workdir.glob('surrogate/*/metrics')
    losses = [step['loss'] for step in loggers.read_parts(folder)]
    assert len(losses) == 20 * (BUDGET // 16) and losses[-1] < 0.5 * losses[0]


def test_its_answers_are_stored_as_it_gave_them(unevaluated):
    _, calls, workdir = unevaluated
    parts = [np.load(path) for path in sorted(workdir.glob('answers/*/part-*.npz'))]
    answers = np.concatenate([part['representations'] for part in parts])
    sent = np.concatenate(calls).reshape(BUDGET, -1)
    np.testing.assert_allclose(answers, sent @ projecting.MAP, rtol=1e-4, atol=1e-5)


def test_if_free_it_is_not_evaluated_and_there_is_no_fidelity_to_it(unevaluated):
    rows, _, _ = unevaluated
    assert {row['role'] for row in rows} == {'surrogate'}
    assert set(of(rows, 'surrogate')) == {'linear_probe', 'knn'}


def test_asked_it_is_evaluated_and_its_rows_carry_the_bill(unevaluated, monkeypatch):
    rows, _, workdir = unevaluated
    asked, calls = rows_of(workdir, evaluation__victim='ask')
    (task,) = sets_of().tasks
    inputs = np.concatenate([task.train.inputs, task.test.inputs])
    different = len(np.unique(data.hashes(inputs)))
    # the attack's answers are stored already: what it sees now is the evaluation's account alone
    seen = np.concatenate(calls)
    assert len(seen) == len(np.unique(seen, axis=0)) == different
    victim = of(asked, 'victim')
    assert {'linear_probe', 'knn'} <= set(victim)
    for row in victim.values():
        bill = [row[f'queries_{name}'] for name in ('billed', 'unique', 'repeated', 'refused')]
        assert bill == [different, different, 0, 0]
    surrogate = of(asked, 'surrogate')
    assert set(surrogate) > {'linear_probe', 'knn', 'agreement'}  # fidelity to the victim
    alone = of(rows, 'surrogate')
    for metric, row in alone.items():
        assert (row['value'], row['stage']) == (
            surrogate[metric]['value'],
            surrogate[metric]['stage'],
        )
        assert surrogate[metric]['queries_billed'] == BUDGET  # the attack did not pay for it

    again, calls = rows_of(workdir, evaluation__victim='ask')
    assert not calls and again == asked
    evaluate._asked.clear()  # as in another process, which reads the stored answers
    sizes, ask = [], evaluate._ask
    monkeypatch.setattr(evaluate, '_ask', lambda *args: sizes.append(len(args[2])) or ask(*args))
    again, calls = rows_of(workdir, evaluation__victim='ask')
    assert not calls and again == asked
    assert sizes == [len(task.train.inputs), len(task.test.inputs)]  # read once for each set


def test_its_probe_is_the_probe_on_its_own_answers(tmp_path):
    rows, _ = rows_of(tmp_path, evaluation__victim='ask', attack__epochs=1)
    alone = assess(
        lambda inputs: projecting.answer(np.asarray(inputs)).astype(np.float32),
        sets_of().tasks,
        probe='sgd(learning_rate=1e-2, epochs=30)',
        neighbors=5,
        shots=0,
    )
    values = {row['metric']: row['value'] for row in alone.measured}
    victim = of(rows, 'victim')
    assert {metric: victim[metric]['value'] for metric in values} == values


def test_behind_a_defense_its_users_ask_it_and_the_baselines_do_not(tmp_path):
    fields = {
        'defense': 'gaussian_noise(stddev=0.1)',
        'legitimate__images': 30,
        'baselines__scratch_epochs': 1,
        'baselines__random': True,
        'attack__epochs': 1,
    }
    rows, calls = rows_of(tmp_path, **fields)
    assert {row['role'] for row in rows} == {'surrogate', 'legitimate', 'scratch', 'random'}
    assert sum(map(len, calls)) == BUDGET + 2 * (30 + 40)  # the user with the defense and without
    for row in rows:
        if row['role'] == 'legitimate':
            floor = row['metric'] in ('user_chance', 'user_untrained')  # without any victim
            assert row['queries_billed'] == 70 * (not floor)
            assert row['encoder'] == 'projecting:answer'
        else:
            assert row['queries_billed'] == (BUDGET if row['role'] == 'surrogate' else 0)


def test_its_owner_trains_a_surrogate_for_a_defense_and_no_account_pays(tmp_path):
    network = 'resnet18(stem="patch", width=4, stages=(1,))'  # 4 numbers, and the victim has 6
    fields = {'victim__encoder': network, 'victim__split': 'train[:48]'}
    fields |= {'defense': 'prediction_poisoning(radius=0.5, epochs=20)'}
    fields |= {'attack__epochs': 1, 'legitimate__users': ()}
    rows, calls = rows_of(tmp_path, **fields)
    assert {row['queries_billed'] for row in rows} == {BUDGET}
    assert sum(map(len, calls)) == 48 + BUDGET
    own = sets_of(**fields).victim.inputs / np.float32(255)
    np.testing.assert_allclose(calls[0], own, rtol=1e-6)
    (folder,) = tmp_path.glob('shadow/*/metrics')
    losses = [step['loss'] for step in loggers.read_parts(folder)]
    assert losses[-1] < 0.95 * losses[0]
    parts = [np.load(path) for path in sorted(tmp_path.glob('answers/*/part-*.npz'))]
    moved = np.concatenate([part['representations'] for part in parts])
    sent = np.concatenate(calls[1:]).reshape(BUDGET, -1) @ projecting.MAP
    shares = np.linalg.norm(moved - sent, axis=1) / np.linalg.norm(sent, axis=1)
    np.testing.assert_allclose(shares, 0.5, rtol=1e-4)


def test_of_a_table_no_surrogate_is_trained(tmp_path):
    inputs = sets_of().pool.inputs
    np.savez(tmp_path / 'table.npz', inputs=inputs, embeddings=np.ones((len(inputs), 6)))
    source = f'embeddings(file="{tmp_path}/table.npz")'
    (cfg,) = config.expand(config_of(victim__source=source, defense='prediction_poisoning'))
    with pytest.raises(UserError, match='this victim is a service or a table: write another def'):
        validate(make_run(cfg, 'nowhere', parallel.data_mesh()))


def test_a_classifier_is_stolen_from_its_own_posteriors(tmp_path):
    source = f'function("projecting:classify", dim={projecting.CLASSES}, answers="posteriors")'
    fields = {'victim__source': source, 'attack__name': 'posteriors'}
    rows, calls = rows_of(tmp_path, attack__loss='cross_entropy', **fields)
    surrogate = of(rows, 'surrogate')
    assert surrogate['classifier']['n'] == 100
    assert surrogate['classifier']['endpoint'] == 'posteriors'
    assert [len(inputs) for inputs in calls] == [16, 16, 9]
    assert not (tmp_path / 'classifier').exists()  # no owner of ours fitted one


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (
            {'attack__plan': 'online'},
            r"attack.plan='online' asks within a compiled step, .* no JAX function; write attack",
        ),
        (
            {'attack__name': 'access_head'},
            r'victim answers with a representation and the attack asks for a projection',
        ),
        (
            {'victim__source': SOURCE.replace(')', ', answers="posteriors")')},
            r'victim answers with a posteriors and the attack asks for a representation',
        ),
        (
            {'defense': 'similarity_guard(of="projection")'},
            r'there is no projection head behind these answers',
        ),
        (
            {
                'victim__source': 'function("projecting:classify", dim=10, answers="posteriors")',
                'attack__name': 'posteriors',
                'defense': 'dynamarks',
            },
            r"defense='dynamarks' .* write another defense",
        ),
        ({'attack__encoder': ''}, r"attack.encoder='': the victim has no network of ours; name"),
        (
            {'victim__source': 'function("projecting:anser", dim=6)'},
            r"victim.source: function\('projecting:anser'\) is not there",
        ),
        (
            {'victim__source': 'function("no_such_module:answer", dim=6)'},
            r"victim.source: function\('no_such_module:answer'\) is not there",
        ),
        (
            {'victim__source': 'function(".projecting:answer", dim=6)'},
            r"function\('.projecting:answer'\) is not there",
        ),
        (
            {'victim__source': 'function("broken_service:answer", dim=6)'},
            r'broken_service.py, line 1: RuntimeError: no key$',
        ),
        (
            {'victim__source': 'function("broken_import:answer", dim=6)'},
            r"function\('broken_import:answer'\): \S+broken_import.py, line 1: ModuleNotFound",
        ),
        ({'victim__source': 'function("projecting", dim=6)'}, r"write function\('module:name', d"),
        ({'victim__source': 'function("projecting:DIM", dim=6)'}, r'6 cannot be called'),
        (
            {'victim__source': 'function("projecting:answer", dim=0)'},
            r'dim=0\).*: dim must be a whole',
        ),
        ({'victim__source': 'function("projecting:answer")'}, r"missing a required argument: 'dim"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line_before_it_is_asked(
    fields, message, tmp_path, monkeypatch
):
    projecting.seen.clear()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'broken_service.py').write_text("raise RuntimeError('no key')\n")
    (tmp_path / 'broken_import.py').write_text('import no_such_module\n')
    (cfg,) = config.expand(config_of(**fields))
    with pytest.raises(UserError, match=message) as caught:
        validate(make_run(cfg, 'nowhere', parallel.data_mesh()))
    assert '\n' not in str(caught.value)
    assert not projecting.seen


def test_a_victim_that_ends_the_process_is_an_error():
    victim = victims.from_function(lambda inputs: sys.exit(0), dim=2, address='quits')
    with pytest.raises(UserError, match=r'victim quits: it calls sys.exit\(0\)'):
        remote.answers_of(victim, np.zeros((3, 2), np.float32))


FAILURES = {
    'json.loads("")': (
        json.JSONDecodeError,
        'JSONDecodeError: Expecting value: .*',
    ),
    'raise RuntimeError("no\\nquota")': (RuntimeError, 'RuntimeError: no quota'),
    'raise MemoryError': (MemoryError, 'MemoryError'),
    # What a terminal would take for a command, and a page of text.
    'raise RuntimeError("\x1b[31m" + 5000 * "x")': (
        RuntimeError,
        r'RuntimeError: \[31mx{995}\.\.\.',
    ),
    # An error that cannot tell what it is.
    'raise type("Odd", (Exception,), {"__str__": None})': (Exception, 'Odd: it cannot be shown'),
    'files.read_json("gone")': (files.DamagedError, 'cannot read gone .*'),
}


@pytest.mark.parametrize('code', FAILURES)
def test_an_error_of_the_function_is_one_line_that_names_it(code, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    name = f'failing_{list(FAILURES).index(code)}'
    imports = 'import json\nfrom ssl_extract.runtime import files\n'
    (tmp_path / f'{name}.py').write_text(f'{imports}def answer(inputs):\n    {code}\n')
    victim = victims.load(f'function("{name}:answer", dim=2, address="model 3")')
    kind, told = FAILURES[code]
    place = rf"victim.source: function\('{name}:answer'\): \S+/{name}.py, line 4: {told}$"
    with pytest.raises(UserError, match=place) as caught:
        remote.answers_of(victim, np.zeros((3, 2), np.float32))
    assert type(caught.value) is UserError and isinstance(caught.value.__cause__, kind)
    assert '\n' not in str(caught.value)


def test_masked_answers_are_refused():
    masked = np.ma.masked_greater(np.ones((3, 2), np.float32), 0.5)
    victim = victims.from_function(lambda inputs: masked, dim=2, address='masked')
    with pytest.raises(UserError, match='victim masked: it answered with a masked array; fill it'):
        remote.answers_of(victim, np.zeros((3, 2), np.float32))


def test_an_interrupt_is_no_error_of_the_function(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = 'import signal\ndef answer(inputs):\n    signal.raise_signal(signal.SIGINT)\n'
    (tmp_path / 'interrupted.py').write_text(code)
    victim = victims.load('function("interrupted:answer", dim=2)')
    with pytest.raises(KeyboardInterrupt):
        remote.answers_of(victim, np.zeros((3, 2), np.float32))
