"""Each attack's own formula, against NumPy on what its networks say; plans, views and phases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import attacks, augment, defenses, encoders, losses, training
from ssl_extract.encoders import chain
from ssl_extract.errors import UserError
from ssl_extract.fingerprint import fingerprint
from ssl_extract.oracle import make_oracle, store
from ssl_extract.runtime import parallel

MESH = parallel.data_mesh()
SHAPE = (8, 8, 3)
VICTIM = encoders.make('resnet18(stem="patch", width=4, stages=(1,))')
WIDER = encoders.make('resnet18(stem="patch", width=6, stages=(1,))')
VARIABLES = VICTIM.init(jax.random.key(5), jnp.zeros((1, *SHAPE)))
IMAGES = np.random.default_rng(0).integers(0, 256, (24, *SHAPE), dtype=np.uint8)
PLAIN = augment.to_float(jnp.asarray(IMAGES))
IDENTITY, FLIP = augment.make(''), augment.make('flip(p=1.0)')
RESIZE = augment.make('random_resized_crop(scale=(0.3, 1.0))')
KEY = jax.random.key(11)


def victim(images):
    return np.asarray(VICTIM.apply(VARIABLES, images))


def oracle(budget, defense=''):
    encode = jax.tree_util.Partial(VICTIM.apply, VARIABLES)
    return make_oracle(encode, defenses.make(defense), budget=budget)


def build(spec='direct', plan='once', encoder=VICTIM, asked=IDENTITY, seen=IDENTITY, loss='mse'):
    return attacks.make(
        spec,
        encoder=encoder,
        answer_dim=4,
        plan=attacks.PLANS.make(plan, query_augmentation=asked),
        loss=losses.make(loss),
        student_augmentation=seen,
    )


def stored(m=1, images=IMAGES, asked=None, missing=()):
    """Training arrays of a stored plan, as the stage makes them; `missing` views had no answer."""
    seeds = np.arange(len(images) * m, dtype=np.uint32).reshape(-1, m)
    floats = augment.to_float(jnp.asarray(images))
    views = [floats if asked is None else asked.view(floats, seeds[:, j]) for j in range(m)]
    answered = np.ones((len(images), m), bool)
    for row, view in missing:
        answered[row, view] = False
    got = np.stack([victim(view) for view in views], axis=1) * answered[..., None]
    return {'inputs': images, 'answers': got, 'answered': answered, 'view_seeds': seeds}


def first(data, size=8):
    """The first rows as the training loop hands them to a step: on the device, decoded."""
    batch = {name: jnp.asarray(rows[:size]) for name, rows in data.items()}
    return batch | {'inputs': augment.to_float(batch['inputs'])}


def step(attack, batch, budget=1000, recipe=None, frozen=None):
    """(loss, the prepared batch, account, ledger, state) of one step at the initialization."""
    recipe = recipe or attack.recipe
    state = training.init_state(recipe, 'adam', jax.random.key(0), SHAPE, frozen=frozen)
    account = oracle(budget).init(jax.random.key(2), jnp.zeros((1, *SHAPE)))
    made, account, ledger = recipe.prepare(batch, KEY, oracle(budget).query, account)
    loss, _ = recipe.objective(state.params, state.batch_stats, made)
    return float(loss), made, account, ledger, state


def student(state, images, size):
    """What the surrogate says of [K * size] images in training mode, as [K, size, D]."""
    used = {'encoder': VICTIM}
    if 'adapter' in state.params:
        used = {'encoder': WIDER, 'adapter': encoders.make_head('linear(dim=4)')}
    outputs, _ = chain.train(used, state.params, state.batch_stats, images)
    return np.asarray(outputs[list(used)[-1]], np.float64).reshape(-1, size, 4)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def steal(folder, attack, budget, steps, *, data=None, mesh=MESH, defense='', optimizer='adam'):
    asked = oracle(budget, defense)
    account = asked.init(jax.random.key(2), jnp.zeros((1, *SHAPE)))
    return training.fit(
        attack.recipe,
        data or {'inputs': IMAGES},
        num_steps=steps,
        batch_size=8,
        learning_rate=1e-2,
        optimizer=optimizer,
        folder=folder,
        mesh=mesh,
        oracle=asked,
        account=account,
        checkpoint_every=3,
        log_every=2,
    )


class TestPlans:
    @pytest.mark.parametrize(('budget', 'refused'), [(24, 0), (37, 3), (1, 7)])
    def test_online_spends_exactly_its_budget(self, tmp_path, budget, refused):
        fit = steal(tmp_path, build(plan='online'), budget, -(-budget // 8))
        assert int(fit.state.oracle.num_queries) == budget
        assert store.make_bill(fit.queries, fit.state.oracle.num_refused) == (
            budget,
            min(budget, 24),
            max(0, budget - 24),  # asking an image again is paid again
            refused,
        )

    def test_online_asks_the_augmented_views_and_the_ledger_has_them(self, tmp_path):
        fit = steal(tmp_path, build(plan='online', asked=FLIP), 24, 3)
        flipped = augment.to_float(jnp.asarray(IMAGES[:, :, ::-1]))
        expected = {bytes(p) for p in np.asarray(fingerprint(flipped))}
        assert {bytes(p) for p in fit.queries} == expected

    def test_online_asks_all_views_of_an_image_before_the_next(self):
        plan = attacks.PLANS.make('online', query_augmentation=RESIZE)
        account = oracle(11).init(jax.random.key(2), jnp.zeros((1, *SHAPE)))
        asked = plan.ask({'inputs': PLAIN[:8]}, KEY, oracle(11).query, account, 2)
        assert asked.queries.shape == (2, 8, *SHAPE) and asked.answers.shape == (2, 8, 4)
        np.testing.assert_array_equal(asked.where[0], np.arange(8) < 6)  # eleven: five and a half
        np.testing.assert_array_equal(asked.where[1], np.arange(8) < 5)
        for k in range(2):
            want = victim(asked.queries[k]) * np.asarray(asked.where[k])[:, None]
            np.testing.assert_allclose(asked.answers[k], want, rtol=1e-4, atol=1e-5)

    def test_online_equals_once_when_both_see_the_same(self, tmp_path):
        """One epoch of unaugmented online queries is one epoch on stored answers."""
        online = steal(tmp_path / 'online', build(plan='online'), 24, 3)
        once = steal(tmp_path / 'once', build(), 24, 3, data=stored())
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)  # noqa: E731
        jax.tree.map(close, online.state.params, once.state.params)
        assert int(once.state.oracle.num_queries) == 0  # stored answers are free

    def test_a_stored_view_meets_the_answer_to_itself(self):
        plan = attacks.PLANS.make('views(m=3)', query_augmentation=RESIZE)
        data = first(stored(3, asked=plan, missing=[(1, 0), (1, 2)]))
        asked = plan.ask(data, KEY, None, (), 2)
        want = [[True] * 8, [i != 1 for i in range(8)]]  # row 1 has one answer: it comes first
        np.testing.assert_array_equal(asked.where, want)
        for k in range(2):
            have = np.asarray(asked.where[k])
            np.testing.assert_allclose(
                asked.answers[k][have], victim(asked.queries[k])[have], rtol=1e-4, atol=1e-5
            )
        assert np.abs(np.asarray(asked.queries[0] - asked.queries[1])).max() > 0.05

    def test_every_stored_view_is_drawn(self):
        plan = attacks.PLANS.make('views(m=3)', query_augmentation=RESIZE)
        data = first(stored(3, asked=plan))
        data['answers'] = jnp.broadcast_to(jnp.arange(3.0)[:, None], (8, 3, 4))
        drawn = [plan.ask(data, jax.random.key(i), None, (), 1).answers[0, :, 0] for i in range(40)]
        counts = np.bincount(np.ravel(drawn).astype(int), minlength=3)
        assert counts.sum() == 320 and counts.min() > 75  # 107 expected, sd 8.4

    def test_more_views_than_stored_are_refused(self):
        plan = attacks.PLANS.make('views(m=1)', query_augmentation=FLIP)
        with pytest.raises(UserError, match=r"write attack.plan='views\(m=2\)'"):
            plan.ask(first(stored()), KEY, None, (), 2)


class TestDirect:
    def test_refused_rows_teach_nothing(self):
        """With one granted row, the loss is that row's alone."""
        loss, made, account, _, state = step(build(plan='online'), {'inputs': PLAIN[:8]}, budget=1)
        said = student(state, made['inputs'], 8)[0]
        want = np.mean((said[0] - victim(made['inputs'])[0]) ** 2)
        assert loss == pytest.approx(want, rel=1e-4)
        assert int(account.num_queries) == 1

    def test_the_student_sees_its_own_view_of_what_was_asked(self):
        attack = build(plan='online', asked=FLIP, seen=FLIP)
        _, made, _, _, _ = step(attack, {'inputs': PLAIN[:8]})
        np.testing.assert_allclose(made['inputs'], PLAIN[:8], atol=1e-6)  # twice mirrored
        want = victim(PLAIN[:8, :, ::-1])
        np.testing.assert_allclose(made['answers'], want, rtol=1e-4, atol=1e-5)

    def test_a_surrogate_of_another_width_has_an_adapter_while_it_trains(self, tmp_path):
        fit = steal(tmp_path, build(plan='online', encoder=WIDER), 24, 3)
        assert set(fit.state.params) == {'encoder', 'adapter'}
        alone = build().recipe.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
        assert set(alone['params']) == {'encoder'}
        encoder = chain.part(fit.state, 'encoder')
        assert WIDER.apply(encoder, jnp.zeros((2, *SHAPE))).shape == (2, 6)

    def test_extraction_approaches_the_victim(self, tmp_path):
        held_out = np.random.default_rng(9).random((64, *SHAPE), np.float32)
        wanted = victim(held_out)

        def distance(state):
            return float(
                np.mean((VICTIM.apply(chain.part(state, 'encoder'), held_out) - wanted) ** 2)
            )

        attack = build(plan='online')
        before = training.init_state(attack.recipe, 'adam', jax.random.key(0), SHAPE)
        images = np.random.default_rng(4).integers(0, 256, (240, *SHAPE), dtype=np.uint8)
        fit = steal(tmp_path, attack, 1600, 200, data={'inputs': images})
        assert distance(fit.state) < 0.3 * distance(before)


def test_stolen_encoder_weighs_its_own_views_by_lambda_over_k():
    """L = d(y, f(x)) + lambda / k sum_j d(y, f(view_j)), d between normalized rows."""
    attack = build('stolen_encoder(lambda_=3.0, views=2)', seen=RESIZE, loss='l2')
    loss, made, _, _, state = step(attack, first(stored()))
    said = student(state, made['inputs'], 8)
    assert said.shape == (3, 8, 4)
    np.testing.assert_allclose(made['inputs'][:8], PLAIN[:8])  # the first view is the image
    apart = [np.linalg.norm(unit(view) - unit(victim(PLAIN[:8])), axis=1).mean() for view in said]
    assert loss == pytest.approx(apart[0] + 3.0 / 2 * (apart[1] + apart[2]), rel=1e-4)


@pytest.mark.parametrize('plan', ['online', 'views(m=1)'])
def test_cont_steal_shows_the_student_another_view_than_it_asks(plan):
    attack = build('cont_steal', plan, asked=FLIP, seen=IDENTITY, loss='cont_steal')
    made_plan = attacks.PLANS.make(plan, query_augmentation=FLIP)
    data = first(stored(asked=made_plan)) if made_plan.stored else {'inputs': PLAIN[:8]}
    loss, made, _, _, state = step(attack, data)
    np.testing.assert_allclose(made['inputs'], PLAIN[:8])  # of the image, not of the query
    teacher = unit(victim(PLAIN[:8, :, ::-1]).astype(np.float64))
    np.testing.assert_allclose(unit(np.asarray(made['answers'])), teacher, rtol=1e-3, atol=1e-4)
    said = unit(student(state, made['inputs'], 8)[0])
    total = 0.0
    for i in range(8):
        positive = np.exp(said[i] @ teacher[i] / 0.5)
        others = sum(np.exp(said[i] @ teacher[k] / 0.5) for k in range(8))
        others += sum(np.exp(said[i] @ said[k] / 0.5) for k in range(8) if k != i)
        total -= np.log(positive / others) / 8
    assert loss == pytest.approx(total, rel=1e-3)


def test_rda_aims_at_the_mean_of_the_normalized_answers():
    """Prototypes over the views that were answered; the loss is the mean over student views."""
    plan = attacks.PLANS.make('views(m=3)', query_augmentation=RESIZE)
    data = first(stored(3, asked=plan, missing=[(2, 1)]))
    attack = attacks.make(
        'rda(views=2)',
        encoder=VICTIM,
        answer_dim=4,
        plan=plan,
        loss=losses.make('rda'),
        student_augmentation=RESIZE,
    )
    loss, made, _, _, state = step(attack, data)
    for row in range(8):
        views = [j for j in range(3) if (row, j) != (2, 1)]
        rows = np.asarray(data['answers'], np.float64)[row, views]
        want = np.mean([r / np.sqrt((r**2).sum()) for r in rows], axis=0)
        np.testing.assert_allclose(made['answers'][row], want, rtol=1e-4, atol=1e-5)
    said = student(state, made['inputs'], 8)
    assert said.shape == (2, 8, 4)
    values = [losses.make('rda')(jnp.asarray(view), made['answers']) for view in said]
    assert loss == pytest.approx(float(np.mean(values)), rel=1e-3)


def test_symmetrized_predicts_the_projection_of_the_other_answer():
    """-1/2 [cos(p(h(f(x1))), h(y2)) + cos(p(h(f(x2))), h(y1))], BatchNorm over the batch."""
    plan = attacks.PLANS.make('views(m=2)', query_augmentation=RESIZE)
    data = first(stored(2, asked=plan))
    attack = build('symmetrized(hidden=8, dim=6, bottleneck=3)', 'views(m=2)', asked=RESIZE,
                   loss='symmetrized')  # fmt: skip
    loss, made, _, _, state = step(attack, data)

    def dense(layer, x):
        return x @ np.asarray(layer['kernel'], np.float64) + np.asarray(layer.get('bias', 0.0))

    def norm(x, layer=None):
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        return x if layer is None else x * np.asarray(layer['scale']) + np.asarray(layer['bias'])

    h, p = state.params['projector'], state.params['predictor']

    def project(x):
        x = np.maximum(norm(dense(h['Dense_0'], x), h['BatchNorm_0']), 0)
        x = np.maximum(norm(dense(h['Dense_1'], x), h['BatchNorm_1']), 0)
        return norm(dense(h['Dense_2'], x))

    def predict(x):
        return dense(p['Dense_1'], np.maximum(norm(dense(p['Dense_0'], x), p['BatchNorm_0']), 0))

    views = np.asarray(made['inputs']).reshape(2, 8, *SHAPE)
    answered = np.stack([victim(view) for view in views]).astype(np.float64)
    predicted = unit(predict(project(student(state, made['inputs'], 8).reshape(16, 4))))
    targets = unit(project(answered[::-1].reshape(16, 4)))
    assert loss == pytest.approx(-np.mean((predicted * targets).sum(axis=1)), rel=1e-2)


class TestRecreateHead:
    SPEC = 'recreate_head(head="simclr(hidden=8, dim=6)")'
    # images of one color each, so that a crop can be told from a crop of another
    COLORS = IMAGES[:, :1, :1] // 2 + IMAGES // 16

    def phases(self, spec=SPEC, loss='mse'):
        plan = attacks.PLANS.make('views(m=2)', query_augmentation=RESIZE)
        attack = build(spec, 'views(m=2)', asked=RESIZE, loss=loss)
        return attack, stored(2, self.COLORS, asked=plan)

    @staticmethod
    def through(head, rows):
        head, rows = jax.tree.map(np.asarray, (head, rows))
        hidden = np.maximum(rows @ head['Dense_0']['kernel'] + head['Dense_0']['bias'], 0)
        return np.asarray(hidden @ head['Dense_1']['kernel'] + head['Dense_1']['bias'], np.float64)

    def test_the_head_is_trained_on_pairs_of_answers_alone(self, tmp_path):
        attack, data = self.phases()
        loss, made, _, _, state = step(attack, first(data), recipe=attack.before)
        z = unit(self.through(state.params['head'], np.concatenate(made['pair'])))
        total = 0.0
        for i in range(16):
            logits = {j: z[i] @ z[j] / 0.07 for j in range(16) if j != i}
            total += np.log(sum(np.exp(v) for v in logits.values())) - logits[(i + 8) % 16]
        assert loss == pytest.approx(total / 16, rel=1e-3)
        given = dict(batch_size=8, learning_rate=1e-2, folder=tmp_path, mesh=MESH, num_steps=150)
        trained = training.fit(attack.before, data, **given).state
        assert set(trained.params) == {'head'}
        after = attack.before.objective(trained.params, trained.batch_stats, made)[0]
        assert after < 0.8 * loss

    def test_the_surrogate_is_compared_through_the_fixed_head(self, tmp_path):
        attack, data = self.phases()
        frozen = attack.before.init(jax.random.key(4), jnp.zeros((1, *SHAPE)))
        frozen = {'head': chain.part(frozen, 'head')}
        loss, made, _, _, state = step(attack, first(data), frozen=frozen)
        said = student(state, made['inputs'], 8)[0]
        head = frozen['head']['params']
        want = np.mean((self.through(head, said) - self.through(head, made['answers'])) ** 2)
        assert loss == pytest.approx(want, rel=1e-3)
        # the student sees one view, the answer is to the other
        np.testing.assert_allclose(made['pair'][0], victim(made['inputs']), rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(made['answers'], made['pair'][1])
        given = dict(batch_size=8, learning_rate=1e-2, folder=tmp_path, mesh=MESH, num_steps=4)
        fit = training.fit(attack.recipe, data, frozen=frozen, **given)
        assert set(fit.state.params) == {'encoder'}
        jax.tree.map(np.testing.assert_array_equal, fit.state.batch_stats['head'], frozen['head'])

    def test_simsiams_way_predicts_one_projection_from_the_other(self):
        spec = (
            'recreate_head(head="simclr(hidden=8, dim=6)", head_loss="symmetrized", '
            'predictor="linear(dim=6)")'
        )
        attack, data = self.phases(spec)
        loss, made, _, _, state = step(attack, first(data), recipe=attack.before)
        z = self.through(state.params['head'], np.concatenate(made['pair']))
        layer = jax.tree.map(np.asarray, state.params['predictor']['Dense_0'])
        p = unit(z @ layer['kernel'] + layer['bias'])
        z = unit(np.concatenate([z[8:], z[:8]]))
        assert loss == pytest.approx(float(-np.mean((p * z).sum(axis=1))), rel=1e-3)


def test_a_classifier_is_stolen_with_cross_entropy():
    attack = build('posteriors', loss='cross_entropy')
    data = first(stored())
    rows = np.random.default_rng(2).dirichlet(np.ones(4), (8, 1)).astype(np.float32)
    loss, made, _, _, state = step(attack, data | {'answers': jnp.asarray(rows)})
    used = {'encoder': VICTIM, 'classifier': encoders.make_head('linear(dim=4)')}
    outputs, _ = chain.train(used, state.params, state.batch_stats, made['inputs'])
    logits = np.asarray(outputs['classifier'], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert loss == pytest.approx(-(rows[:, 0] * log_p).sum(axis=1).mean(), rel=1e-4)


def test_access_head_ends_where_the_victims_head_does():
    attack = build('access_head(hidden=5)', loss='mse')
    _, _, _, _, state = step(attack, first(stored()))
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.params['head'])]
    assert sorted(shapes) == [(4,), (4, 5), (5,), (5, 4)]
