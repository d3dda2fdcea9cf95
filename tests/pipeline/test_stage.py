"""Stages: what they share and what they must not."""

import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ssl_extract import training
from ssl_extract.encoders import trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.pipeline import stage
from ssl_extract.pipeline.context import Workspace
from ssl_extract.runtime import files, parallel

NETWORK = 'resnet18(stem="patch", width=4, stages=(1,))'


def test_with_one_seed_no_two_roles_start_alike():
    network = trained.make(NETWORK)
    starts = [
        network.init(jax.random.key(stage.seed_of(role, 3)), jnp.zeros((1, 8, 8, 3)))
        for role in ('victim', 'surrogate', 'scratch', 'random')
    ]
    for one, other in itertools.combinations(starts, 2):
        kernels = [variables['params']['stem']['kernel'] for variables in (one, other)]
        correlation = np.corrcoef(*(np.ravel(kernel) for kernel in kernels))[0, 1]
        assert abs(correlation) < 0.5


@pytest.mark.parametrize(
    ('role', 'field'), [('victim', 'victim'), ('scratch', 'victim'), ('surrogate', 'attack')]
)
def test_a_training_that_diverges_names_the_field_of_its_role(tmp_path, role, field):
    recipe = training.Recipe(
        init=lambda key, inputs: {'params': {'w': jnp.zeros([])}, 'batch_stats': {}},
        prepare=lambda batch, key, ask, account: (batch, account, None),
        objective=lambda params, stats, batch: (jnp.sqrt(params['w'] ** 2) * 0 + 1, (stats, {})),
    )  # a finite loss, and a gradient of NaN
    with pytest.raises(FloatingPointError, match=rf'^{role}: .*; lower {field}\.learning_rate'):
        stage.fit_encoder(
            Workspace(tmp_path, parallel.data_mesh()),
            tmp_path,
            recipe,
            {'inputs': np.zeros((8, 2), np.float32)},
            role=role,
            encoder=NETWORK,
            seed=0,
            num_steps=1,
            how=stage.Optimization('sgd', 'constant', 0.1, 4),
            decode=lambda inputs: inputs,
        )


def test_an_encoder_that_is_not_finite_is_not_read(tmp_path):
    variables = trained.make(NETWORK).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    variables['params']['stem']['kernel'] = variables['params']['stem']['kernel'].at[0].set(np.nan)
    trained.save(tmp_path, Encoder(NETWORK, variables, (8, 8, 3)))
    with pytest.raises(UserError, match='parameters of this encoder are not finite') as caught:
        trained.load(tmp_path)
    assert str(tmp_path) in str(caught.value) and '\n' not in str(caught.value)


def test_a_result_of_another_stage_is_not_taken_for_this_one(tmp_path):
    workspace, specs = Workspace(epath.Path(tmp_path), parallel.data_mesh()), ({'n': 1}, {'n': 2})
    values = [stage.cached(workspace, 'mark', spec, lambda _, s=spec: s['n']) for spec in specs]
    assert values == [1, 2]
    one, two = (tmp_path / 'mark' / stage.address(workspace, spec) for spec in specs)
    shutil.copy(two / 'result.json', one / 'result.json')
    with pytest.raises(UserError, match=f'result.json is of the stage {two.name}: move {one} out'):
        stage.cached(workspace, 'mark', specs[0], lambda _: 3)
    shutil.move(one, tmp_path / 'elsewhere')
    assert stage.cached(workspace, 'mark', specs[0], lambda _: 1) == 1


def test_a_kill_behind_an_encoders_last_file_leaves_no_checkpoints_for_ever(tmp_path):
    variables = trained.make(NETWORK).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    encoder = Encoder(NETWORK, variables, (8, 8, 3))
    workspace = Workspace(epath.Path(tmp_path), parallel.data_mesh())
    form, spec = stage.encoder_form(workspace, 'victim'), {'n': 1}
    left = workspace.folder / 'victim' / stage.address(workspace, spec) / 'checkpoints'
    trained.save(left.parent, encoder)
    files.write_text(left / '4' / 'state', 'of the training')
    stage.cached(workspace, 'victim', spec, lambda _: None, form)
    assert not left.exists()
