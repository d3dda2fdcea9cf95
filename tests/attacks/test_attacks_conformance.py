"""What every attack keeps: the budget, the handle, its gradient, one result everywhere."""

import functools

import all_attacks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import untrained
from untrained import SHAPE

from ssl_extract import attacks, config, strategies, training
from ssl_extract.encoders import chain
from ssl_extract.fingerprint import fingerprint
from ssl_extract.oracle import Answer, make_oracle
from ssl_extract.pipeline import services, surrogate
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.sets import load_sets
from ssl_extract.runtime import parallel

pytestmark = pytest.mark.devices

FOUR, ONE = parallel.data_mesh(), parallel.data_mesh(1)
ENCODER = 'resnet18(stem="patch", width=4, stages=(1,))'


@pytest.fixture(scope='module')
def victim():
    """An untrained victim with a head."""
    return untrained.victim(ENCODER)


def config_of(name):
    (cfg,) = config.expand(all_attacks.get_config(name))
    cfg.training.checkpoint_every = 500  # none of these is stopped
    return cfg


def at_length(names):
    """The kinds of attacks, and others at length; two accounts are in the golden rows, too."""
    kinds = [name for name in all_attacks.KINDS if name != 'sybils']
    rest = sorted({*names, 'sybils'})
    return [*kinds, *(pytest.param(name, marks=pytest.mark.wide) for name in rest)]


def test_every_attack_plan_and_strategy_is_tried():
    runs = [config_of(name) for name in all_attacks.RUNS]
    used = lambda field: {run.attack[field].split('(')[0] for run in runs}  # noqa: E731
    assert used('name') == set(attacks.ATTACKS)
    assert used('plan') == set(attacks.PLANS)
    # These two run on clips and texts, in tests/test_modalities.py.
    assert set(strategies.STRATEGIES) - used('strategy') == {'diverse', 'longest'}


@pytest.fixture(scope='module')
def steal(victim, tmp_path_factory):
    """`(name, mesh) -> (the surrogate, workdir)`, each made once."""

    @functools.cache
    def stolen(name, mesh):
        run = make_run(config_of(name), tmp_path_factory.mktemp('run'), mesh)
        workspace = run.workspace
        return surrogate.steal(workspace, untrained.extraction(run, victim)), workspace.folder

    return stolen


# The bills of all are in the golden rows, which test_golden_rows.py counts.
@pytest.mark.parametrize('name', at_length(set(all_attacks.RUNS) - set(all_attacks.KINDS)))
def test_it_spends_exactly_its_budget(name, steal):
    (_, stolen), workdir = steal(name, FOUR)
    assert stolen.bill.billed + stolen.bill.refused >= all_attacks.BUDGET
    assert stolen.flops > 0 and stolen.seconds > 0
    if name == 'guarded_online':
        assert 0 < stolen.bill.billed <= 120
        flagged = stolen.noticed['similarity_guard.num_flagged']
        assert stolen.noticed['rate_limit.num_answered'] == stolen.bill.billed + flagged
        return
    assert stolen.bill.billed == all_attacks.BUDGET
    if name == 'sybils':
        assert stolen.bill == (all_attacks.BUDGET, all_attacks.BUDGET - 20, 20, 0)
        accounts = [np.load(path)['0'] for path in workdir.glob('answers/*/account-*.npz')]
        assert sorted(accounts) == [68, 69]
        assert 0 < stolen.noticed['bucket_coverage.coverage'] <= 1
    elif name == 'repeat':
        assert stolen.bill == (all_attacks.BUDGET, 69, 68, 0)
    elif name == 'near_duplicates':  # two copies of an input may be changed in the same place
        assert all_attacks.BUDGET - 5 < stolen.bill.unique <= stolen.bill.billed
    elif config_of(name).attack.plan != 'online':
        assert stolen.bill == (all_attacks.BUDGET, all_attacks.BUDGET, 0, 0)
        (account,) = workdir.glob('answers/*/account-*.npz')
        assert int(np.load(account)['0']) == all_attacks.BUDGET  # num_queries


@pytest.mark.parametrize('name', at_length(all_attacks.OTHERS))
def test_one_device_ends_where_four_do(name, steal):
    one, four = (steal(name, mesh)[0] for mesh in (ONE, FOUR))
    assert one.record.bill == four.record.bill
    pool = load_sets(make_run(config_of(name), 'nowhere', ONE)).pool
    images = pool.inputs[:32] / np.float32(255)
    here, there = (stolen.encoder.apply(images) for stolen in (one, four))
    np.testing.assert_allclose(here, there, rtol=0.02, atol=0.02 * np.abs(there).max())


@pytest.mark.parametrize('name', all_attacks.RUNS)
def test_it_gets_a_handle_and_no_gradient_reaches_the_victim(name, victim):
    """A step is made of `ask` alone, a function with nothing on it, and moves the student."""
    run = make_run(config_of(name), 'nowhere', ONE)
    a, sketch, num_classes = run.config.attack, untrained.sketch(victim), 10
    attack = surrogate.attack_of(run, sketch, num_classes)
    endpoint = attacks.endpoint_of(a.name)
    dim = services.answer_dim(sketch, endpoint, run.config.defense, num_classes)
    stored = max(surrogate.make_plan(a.plan, a.query_augmentation).stored, 1)
    rng = np.random.default_rng(0)
    batch = {
        'inputs': rng.random((8, *SHAPE), np.float32),
        'labels': np.arange(8, dtype=np.int32) % 3,
        'answers': rng.dirichlet(np.ones(dim), (8, stored)).astype(np.float32),
        'answered': np.ones((8, stored), bool),
        'view_seeds': np.zeros((8, stored), np.uint32),
    }
    frozen = {}
    if attack.before:
        first = attack.before.init(jax.random.key(1), jnp.zeros((1, *SHAPE)))
        frozen = {name: chain.part(first, name) for name in first['params']}
    start = training.init_state(attack.recipe, 'adam', jax.random.key(0), SHAPE, frozen=frozen)
    given = []

    def loss(params, secret):
        encode = jax.tree_util.Partial(_answer, secret)
        asked = make_oracle(encode, budget=200)

        def ask(queries, account):
            given.append(queries.shape)
            answer, account = asked.query(queries, account)
            return Answer(answer.representations, answer.granted), account

        account = asked.init(jax.random.key(2), jnp.zeros((1, *SHAPE)))
        made, _, _ = attack.recipe.prepare(batch, jax.random.key(3), ask, account)
        return attack.recipe.objective(params, start.batch_stats, made)[0]

    secret = jnp.asarray(rng.normal(size=(8 * 8 * 3, dim)), jnp.float32)
    moved, reached = jax.jit(jax.grad(loss, argnums=(0, 1)))(start.params, secret)
    np.testing.assert_array_equal(reached, 0)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(moved['encoder']))
    online = a.plan == 'online'
    assert given == ([(8 * attack.asks, *SHAPE)] if online else [])


def _answer(secret, images):
    return jax.nn.softmax(images.reshape(len(images), -1) @ secret)


def test_what_a_recipe_is_given_leads_to_no_parameters(tmp_path):
    """The oracle of `fit` holds the victim's parameters; `ask` is a function without attributes."""
    seen = []
    encode = jax.tree_util.Partial(_answer, jnp.ones((8 * 8 * 3, 4)))
    asked = make_oracle(encode, budget=8)

    def prepare(batch, key, ask, account):
        seen.append(ask)
        queries = jnp.zeros((8, *SHAPE))
        answer, account = ask(queries, account)
        ledger = fingerprint(queries), answer.granted
        return {'answers': answer.representations}, account, ledger

    recipe = training.Recipe(
        init=lambda key, images: {'params': {'w': jnp.ones([])}, 'batch_stats': {}},
        prepare=prepare,
        objective=lambda params, stats, batch: (
            params['w'] * jnp.sum(batch['answers']),
            (stats, {}),
        ),
    )
    training.fit(
        recipe,
        {'inputs': np.zeros((8, *SHAPE), np.uint8)},
        num_steps=1,
        batch_size=8,
        learning_rate=0.1,
        folder=tmp_path,
        mesh=ONE,
        oracle=asked,
        account=asked.init(jax.random.key(0), jnp.zeros((1, *SHAPE))),
    )
    (ask,) = seen
    assert not jax.tree.leaves(vars(ask)) and not hasattr(ask, 'args') and not hasattr(ask, 'func')
