"""Every registered part on images, waveforms and tokens: it works, or is refused in one line.

By default the shapes of every run are traced, on waveforms and tokens; `make test-wide` computes
the runs. A part that is registered later is tried as all others.
"""

import jax
import jax.numpy as jnp
import modalities
import numpy as np
import pytest

from ssl_extract import attacks, augment, config, data, defenses, losses, recovery, strategies
from ssl_extract.defenses.poisoning import Shadow
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.evaluation import PROBES
from ssl_extract.pipeline import run as pipeline
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.sets import load_sets
from ssl_extract.pipeline.validate import validate
from ssl_extract.pipeline.victim import abstract_variables, seen_shape
from ssl_extract.runtime import parallel
from ssl_extract.users import USERS
from ssl_extract.victims import VICTIMS

# Nearly all other tests are on images, and the golden rows try every part on them.
KINDS = [pytest.param('images', marks=pytest.mark.wide), 'waves', 'tokens']
REGISTRIES = {
    'attack.name': attacks.ATTACKS,
    'attack.plan': attacks.PLANS,
    'attack.loss': losses.LOSSES,
    'attack.strategy': strategies.STRATEGIES,
    'attack.recover': recovery.RECOVERIES,
    'attack.init': attacks.STARTS,
    'victim.method': VICTIMS,
    'legitimate.users': USERS,
    'evaluation.probe': PROBES,
}
PARTS = [(field, name) for field, registry in REGISTRIES.items() for name in registry]
UNSEEING = ('attack.loss', 'evaluation.probe')  # of no inputs, but of answers or representations
SPECS = {  # of parts whose defaults do not suit a tiny run
    'attack.name': (
        'access_head(hidden=4)',
        'rda(views=2)',
        'recreate_head(head="simclr(hidden=4, dim=4)", head_epochs=1.0)',
        'stolen_encoder(views=2)',
        'symmetrized(hidden=4, dim=4, bottleneck=2)',
    ),
    'attack.plan': ('views(m=2)',),
    'attack.recover': ('cluster_select_eliminate(clusters=4, rank=2)',),
    'attack.strategy': ('knockoff(rounds=2)',),
    'victim.method': (
        'rotation_watermark(hidden=4, dim=4, predictor=4)',
        'simclr(hidden=4, dim=4)',
        'simsiam(hidden=4, dim=4, bottleneck=2)',
    ),
    'legitimate.users': ('augmenting(views=1)', 'narrow(classes=2)'),
    'defense': ('top_k(k=2)',),
}
BESIDE = {  # the fields that a part needs beside its own
    'checkpoint': {'attack.init': 'checkpoint(path="{folder}")'},
    'dynamarks': {'attack.name': 'posteriors'},
    'knockoff': {'attack.name': 'posteriors'},
    'rda': {'attack.plan': 'views(m=2)'},
    'semantic_perturbation': {'attack.plan': 'views(m=2)'},
}
REFUSED = {  # (part, kind of inputs): the reason
    ('near_duplicates', 'waves'): 'changes single numbers, and .* has waves with padding',
    ('near_duplicates', 'tokens'): 'changes single numbers, and .* has tokens with padding',
    ('consistency', 'waves'): 'augments images of uint8, and .* holds int16',
    ('consistency', 'tokens'): 'augments images of uint8, and .* holds int32',
    ('several_layers', 'tokens'): "the victim's encoder does not tell its layers",
    ('rotation_watermark', 'waves'): 'rotation takes an image',
    ('rotation_watermark', 'tokens'): 'rotation takes an image',
    ('dynamarks', 'waves'): 'dynamarks reads its signal from images',
    ('dynamarks', 'tokens'): 'dynamarks reads its signal from images',
}


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    return modalities.write(tmp_path_factory.mktemp('sets'))


@pytest.fixture(scope='module')
def saved(sets, tmp_path_factory):
    """Saves an encoder of zeros for inputs of a kind, and returns its folder."""

    def save(kind):
        spec, shape = sets[kind].encoder, seen_shape(load_sets(run_of(sets[kind])))
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_variables(spec, shape))
        folder = tmp_path_factory.mktemp(kind)
        trained.save(folder, trained.Encoder(spec, zeros, shape))
        return folder

    return save


def spec_of(field, name):
    return next((s for s in SPECS.get(field, ()) if s.startswith(f'{name}(')), name)


def fields_of(field, name, modality, saved):
    """The fields of a run with a part; its augmentations are of the kind of the inputs."""
    fields = {field: spec_of(field, name)} | BESIDE.get(name, {})
    if field == 'attack.init':
        fields[field] = fields[field].replace('{folder}', str(saved(modality.takes)))
    if field == 'legitimate.users':
        fields |= {field: (fields[field],), 'defense': 'round'}
    if field == 'defense':
        fields['legitimate.users'] = ('broad',)
    own = attacks.own_settings(fields.get('attack.name', 'direct'))
    if attacks.PLANS.traits(fields.get('attack.plan', own['plan'])).augments:
        fields['attack.query_augmentation'] = modality.view
    if own['student_augmentation'] != 'none':
        fields['attack.student_augmentation'] = modality.view
    return fields


def run_of(modality, **fields):
    (cfg,) = config.expand(modalities.config_of(modality, **fields))
    return make_run(cfg, 'nowhere', parallel.data_mesh())


def works(name, kind, attempt):
    """Whether a part works; fails unless it does, or is refused as REFUSED says."""
    if (name, kind) not in REFUSED:
        attempt()
        return True
    with pytest.raises(UserError, match=REFUSED[name, kind]) as error:
        attempt()
    assert '\n' not in str(error.value)
    return False


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(('field', 'name'), PARTS)
def test_a_part_is_valid(field, name, kind, sets, saved):
    run = run_of(sets[kind], **fields_of(field, name, sets[kind], saved))
    works(name, kind, lambda: validate(run))


def test_a_saved_victim_is_asked_for_tokens_that_it_knows(sets, tmp_path):
    spec, shape = (
        'bag_of_tokens(vocabulary=2, width=4)',
        seen_shape(load_sets(run_of(sets['tokens']))),
    )
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_variables(spec, shape))
    trained.save(tmp_path, trained.Encoder(spec, zeros, shape))
    fields = {'victim.source': f'checkpoint(path="{tmp_path}")'}
    with pytest.raises(UserError, match='victim=.* has a vocabulary of 2, and .* has the token'):
        validate(run_of(sets['tokens'], **fields, **{'attack.encoder': sets['tokens'].encoder}))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', defenses.DEFENSES)
def test_a_defense_takes_inputs(name, kind, sets):
    """Its shapes alone, behind a victim of a matrix product."""
    pool, spec = load_sets(run_of(sets[kind])).pool, spec_of('defense', name)
    inputs, keys = data.decoder(pool)(pool.inputs[:4]), jax.random.split(jax.random.key(1), 4)
    variables = {'params': jnp.ones((inputs[0].size, 4))}

    def encode(variables, inputs):
        return inputs.reshape(len(inputs), -1) @ variables['params']

    owns = {'head': lambda outputs: outputs, 'shadow': Shadow(encode, variables)}
    defense = defenses.make(spec, **{need: owns[need] for need in defenses.needs(spec)})

    def answer(inputs):
        outputs = encode(variables, inputs)
        state = defense.init(jax.random.key(0), outputs, inputs)
        where = jnp.ones(len(inputs), bool)
        return defense.apply(outputs, state, inputs=inputs, where=where, keys=keys)

    works(name, kind, lambda: jax.eval_shape(answer, inputs))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', recovery.RECOVERIES)
def test_a_recovery_takes_inputs(name, kind, sets):
    """Answers and an encoder of the attacker's own, a matrix product."""
    pool, rng = load_sets(run_of(sets[kind])).pool, np.random.default_rng(0)
    inputs, decode = pool.inputs[:32], data.decoder(pool)
    answers = rng.normal(size=(32, 2, 4)).astype(np.float32)
    matrix = rng.normal(size=(decode(inputs)[0].size, 4)).astype(np.float32)
    own = recovery.Shadow(lambda x: np.asarray(decode(x)).reshape(len(x), -1) @ matrix, 0, decode)
    spec = 'denoise(known="round")' if name == 'denoise' else spec_of('attack.recover', name)
    received = recovery.Received(inputs, answers, np.ones((32, 2), bool))
    recovered = recovery.make(spec)(received, own)
    assert np.isfinite(recovered.answers).all() and recovered.answered.any()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', augment.AUGMENTATIONS)
def test_a_view_takes_inputs_of_its_kind_alone(name, kind, sets):
    pool, takes = load_sets(run_of(sets[kind])).pool, augment.takes(name)
    if takes not in ('', kind):
        reason = f'has {kind}, and {name} takes {takes}: write one that takes {kind}: '
        with pytest.raises(UserError, match=reason) as error:
            data.check_kind(pool, takes, name)
        assert '\n' not in str(error.value)
    else:
        data.check_kind(pool, takes, name)
        row = data.decoder(pool)(pool.inputs[0])
        assert jax.eval_shape(augment.make(name), jax.random.key(0), row).shape == row.shape


@pytest.mark.parametrize(
    ('field', 'spec'),
    [
        ('attack.query_augmentation', 'simclr'),
        ('attack.student_augmentation', 'flip'),
        ('legitimate.users', 'augmenting(augmentation="flip")'),
    ],
)
def test_views_of_another_kind_are_refused_by_their_field(field, spec, sets):
    """Before the victim is trained, and with the names of those that fit."""
    fields = {'attack.plan': 'views(m=2)', 'attack.query_augmentation': 'gain', 'defense': 'round'}
    fields[field] = (spec,) if field == 'legitimate.users' else spec
    with pytest.raises(UserError, match=f'has waves, and {field}.* takes images: .* gain, '):
        validate(run_of(sets['waves'], **fields))


@pytest.fixture(scope='module')
def workdirs(tmp_path_factory):
    """A workdir for each kind, in which all runs share their victim."""
    return {kind: tmp_path_factory.mktemp('workdir') for kind in ('waves', 'tokens')}


@pytest.mark.wide
@pytest.mark.parametrize('kind', ['waves', 'tokens'])
@pytest.mark.parametrize(
    ('field', 'name'),
    [
        *((field, name) for field, name in PARTS if field not in UNSEEING),
        *(('defense', name) for name in defenses.DEFENSES),
    ],
)
def test_a_part_runs(field, name, kind, sets, saved, workdirs):
    """From the victim to rows: the budget is spent, and every measurement is a number."""
    cfg = modalities.config_of(sets[kind], **fields_of(field, name, sets[kind], saved))
    rows = []
    if works(name, kind, lambda: rows.extend(pipeline.run(cfg, workdir=workdirs[kind]))):
        stolen = [row for row in rows if row['role'] == 'surrogate']
        assert {'linear_probe', 'cka'} <= {row['metric'] for row in stolen}
        assert all(np.isfinite(row['value']) for row in rows)
        assert {row['queries_billed'] + row['queries_refused'] for row in stolen} == {32}
