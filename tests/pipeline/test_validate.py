"""Wrong input ends before any training, in one line that says what to write instead."""

import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ssl_extract import config, data, defenses, encoders, losses
from ssl_extract.defenses import Defense
from ssl_extract.errors import UserError
from ssl_extract.evaluation import make_tasks
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.evaluate import try_probe
from ssl_extract.pipeline.feasibility import check_steps
from ssl_extract.pipeline.modules import import_modules
from ssl_extract.pipeline.run import prepare
from ssl_extract.pipeline.sets import load_sets, notes_of
from ssl_extract.pipeline.validate import validate
from ssl_extract.pipeline.victim import victim_of
from ssl_extract.runtime import checkpoint, parallel

MESH = parallel.data_mesh()


def unexpanded(**fields):
    cfg = tiny.get_config()
    cfg.runs = ()
    for field, value in fields.items():
        cfg.update_from_flattened_dict({field.replace('__', '.'): value})
    return cfg


def tiny_run(**fields):
    (cfg,) = config.expand(unexpanded(**fields))
    return make_run(cfg, 'nowhere', MESH)


_ONE_PIXEL = 'resnet18(stem="patch", width=4, stages=(1, 1, 1))'  # 8x8 inputs end in 1x1
NO_SCRATCH = {'baselines__scratch_epochs': 0}
NOT_AUGMENTED = {'attack__query_augmentation': 'none'}
WRONG = [
    ({'attack__budget': 0}, r'attack.budget=0: write a whole number from 1 to 1073741824'),
    ({'attack__budget': -5}, r'attack.budget=-5: write a whole number from 1'),
    (
        {'attack__budget': 10**12},
        r'attack.budget=1000000000000: write a whole number from 1 to 1073741824',
    ),
    (
        {'attack__budget': 137},
        r'attack.budget=137: digits/train\[64:200\] has 136 different inputs',
    ),
    ({'victim__epochs': -1}, r'victim.epochs=-1: write a whole number from 1'),
    ({'attack__epochs': 0}, r'attack.epochs=0: write a whole number from 1'),
    (
        {'attack__learning_rate': float('nan')},
        r'attack.learning_rate=nan: write a finite number above 0',
    ),
    ({'attack__batch_size': 42}, r'attack.batch_size=42 is more than the 41 inputs'),
    pytest.param(
        {'attack__batch_size': 15},
        r'attack.batch_size=15 must be a multiple of the 4 devices; try 16',
        marks=pytest.mark.devices,
    ),
    ({'victim__batch_size': 65}, r'victim.batch_size=65 is more than the 64 inputs'),
    (
        {'attack__budget': 65, 'attack__plan': 'online', 'attack__loss': 'infonce'},
        r"attack.budget=65: plan 'online' has 1 queries left for the last step, .*; write 66",
    ),
    ({'seed': -1}, r'seed=-1: write a whole number from 0'),
    ({'attack__loss': 'infonse'}, r"unknown loss 'infonse': did you mean 'infonce'"),
    ({'attack__loss': 'infonce(temp=1)'}, r'it takes \(temperature: float above 0 = 0.07\)'),
    ({'attack__loss': 'infonce(temperature=0)'}, r'temperature'),
    ({'attack__name': 'direkt'}, r"unknown attack 'direkt': did you mean 'direct'"),
    ({'attack__plan': 'twice'}, r"unknown query plan 'twice'"),
    (
        {'attack__query_augmentation': 'flip'},
        r"plan 'once' asks each input as it is; write attack.plan='views\(m=1\)' or 'online'",
    ),
    (
        {'attack__plan': 'views(m=3)'},
        r"would ask the same input 3 times; .*, or attack.plan='repeat\(m=3\)'",
    ),
    ({'attack__plan': 'repeat(m=0)'}, r'm=0'),
    ({'attack__plan': 'views(m=0)'}, r'm must be a whole number from 1'),
    (
        {'attack__name': 'symmetrized', 'attack__plan': 'views(m=1)'},
        r"works with 2 views of an input, and the plan stores 1: write attack.plan='views\(m=2\)'",
    ),
    (
        {'attack__name': 'recreate_head', 'attack__plan': 'once', **NOT_AUGMENTED},
        r"recreate_head trains its head .* write attack.plan='views\(m=2\)'",
    ),
    ({'attack__name': 'rda(views=0)', 'attack__batch_size': 4, **NO_SCRATCH}, r'views=0'),
    ({'attack__name': 'stolen_encoder(lambda_=-1)'}, r'lambda_=-1'),
    ({'attack__strategy': 'kcentr'}, r"unknown query strategy 'kcentr': did you mean 'kcenter'"),
    ({'attack__strategy': 'kcenter(rounds=4)'}, r'pays for 41 inputs, 10 a round, fewer than'),
    (
        {'attack__strategy': 'kcenter(rounds=2)', 'attack__plan': 'online'},
        r"plan 'online' asks views of all of the attacker's inputs",
    ),
    (
        {'attack__strategy': 'knockoff(rounds=2)'},
        r"learns from probabilities and attack 'direct' gets a representation",
    ),
    (
        {
            'attack__strategy': 'knockoff(rounds=2)',
            'attack__name': 'posteriors',
            'attack__data': 'noise',
            'attack__split': 'train[:50]',
        },
        r'noise/train\[:50\] has no labels',
    ),
    ({'cost__dollars_per_hour': -1.0}, r'cost.dollars_per_hour=-1.0: write a finite number from 0'),
    ({'attack__optimizer': 'adamm'}, r"unknown optimizer 'adamm': did you mean 'adam'"),
    ({'attack__schedule': 'linear'}, r"unknown schedule 'linear'"),
    ({'defense': 'gaussian_noise(0.1'}, r'cannot read'),
    ({'defense': 'roundd'}, r"unknown defense 'roundd': did you mean 'round'"),
    (
        {'defense': 'gaussian_noise | similarity_guard'},
        r'similarity_guard after gaussian_noise makes no sense: .*; put similarity_guard before',
    ),
    ({'defense': 'dynamarks'}, r"'dynamarks' changes posteriors or labels, and the attack asks"),
    (
        {'defense': 'prediction_poisoning', 'attack__name': 'posteriors'},
        r"'prediction_poisoning' changes representation, and the attack asks for posteriors",
    ),
    ({'defense': 'top_k(k=99)'}, r'k=99'),
    ({'attack__recover': 'denoisee'}, r"unknown recovery 'denoisee': did you mean 'denoise'"),
    (
        {'attack__recover': 'drop_outliers', 'attack__plan': 'online'},
        r"works on stored answers and plan 'online' stores none",
    ),
    ({'attack__recover': 'denoise', **NO_SCRATCH}, r'own encoder: set baselines.scratch_epochs'),
    (
        {'attack__recover': 'subtract_shift', 'attack__name': 'posteriors'},
        r'knows representations and attack',
    ),
    (
        {'attack__recover': 'denoise', 'attack__name': 'several_layers(widths=(4, 4))'},
        r"the answers have 8 coordinates and the attacker's own encoder 4",
    ),
    (
        {'attack__recover': 'denoise', 'attack__encoder': 'resnet18(width=8, stages=(1,))'},
        r"the answers have 4 coordinates and the attacker's own encoder 8; write an attack.encoder",
    ),
    ({'attack__recover': "denoise(known='pad_shuffle')"}, r'pad_shuffle changes the width'),
    (
        {'defense': 'similarity_guard(of="projection")', 'attack__name': 'access_head(hidden=8)'},
        r"of='projection': there is no projection head behind these answers",
    ),
    ({'attack__accounts': 2, 'attack__plan': 'online'}, r"share out the inputs of plan 'once'"),
    ({'attack__accounts': 4}, r'attack.overlap=256: 4 accounts .* lower attack.overlap'),
    ({'attack__accounts': 0}, r'attack.accounts=0: write a whole number from 1'),
    (
        {'attack__accounts': 2, 'attack__overlap': 0},
        r"attack.overlap=20, or attack.name='direct\(adapter=True\)'",
    ),
    (
        {'attack__plan': 'near_duplicates(m=2)', 'attack__query_augmentation': 'flip'},
        r"plan 'near_duplicates\(m=2\)' asks each input as it is",
    ),
    ({'legitimate__users': ('narow',)}, r"'narow': did you mean 'narrow'"),
    (
        {'legitimate__users': ('narrow(classes=11)',), 'defense': 'round(decimals=2)'},
        r'classes=11: the first task has 10',
    ),
    ({'legitimate__model': 'svm'}, r"unknown legitimate user's model 'svm'"),
    ({'legitimate__images': 0}, r'legitimate.images=0: write a whole number from 1'),
    ({'legitimate__test_images': -1}, r'legitimate.test_images=-1: write a whole number from 0'),
    ({'victim__method': 'moco'}, r"unknown victim method 'moco'"),
    ({'victim__encoder': 'resnet19'}, r"unknown encoder 'resnet19': did you mean"),
    ({'victim__encoder': 'vit(patch=3)'}, r'patch'),
    ({'victim__augmentation': 'simclr(flipp=1)'}, r'flipp'),
    ({'victim__split': 'training'}, r'training'),
    ({'victim__split': 'train[5:5]'}, r'train\[5:5\]'),
    ({'data__name': 'cifar11'}, r'cifar11'),
    ({'data__dir': '/nonexistent', 'data__name': 'cifar10'}, r'cifar10'),
    ({'evaluation__probe': 'svm'}, r"unknown probe 'svm'"),
    (
        {'evaluation__probe': 'lbfgs(l2_grid=(-1.0,))'},
        r'l2_grid must be a list, each item a finite number above 0',
    ),
    ({'evaluation__tasks': ()}, r'evaluation.tasks is empty'),
    ({'evaluation__tasks': ('digits(tset="test")',)}, r'it takes \(train="train", test="test"\)'),
    ({'evaluation__tasks': ('digits', 'digits')}, r"evaluation.tasks has 'digits' twice"),
    (
        {'evaluation__tasks': ('digits(train="test", test="train[:100]")',)},
        r'36 of .* are among the queries',
    ),
    ({'evaluation__tasks': ('digits(test="train")',)}, r'are among those of digits/train'),
    ({'evaluation__tasks': ('digits(train="train[:3]")',)}, r'digits/train\[:3\]'),
    ({'evaluation__neighbors': 500}, r'evaluation.neighbors=500'),
    ({'evaluation__shots': 50}, r'evaluation.shots=50'),
    ({'evaluation__tasks': ('digits(train="train[:200]", test="test[:9]")',)}, r'test set'),
    ({'victim__source': 'checkpoint(path="/nonexistent")'}, r'no encoder in /nonexistent'),
    ({'victim__source': 'checkpont'}, r"unknown victim source 'checkpont': did you mean"),
    ({'victim__source': 'checkpoint'}, r"missing a required argument: 'path'"),
    ({'evaluation__victim': 'maybe'}, r"evaluation.victim='maybe': write one of 'if_free', 'ask'"),
    # Values that would end late, or never.
    ({'victim__epochs': 2147483648}, r'victim.epochs=2147483648: write a whole number from 1 to'),
    ({'victim__learning_rate': 1e30}, r'write a finite number above 0; a number is 0, or from'),
    (
        {'cost__dollars_per_hour': 1.7e308},
        r'=1.7e\+308: write a finite number from 0 to 1000000000',
    ),
    ({'data__size': 200_000}, r'data.size=200000: write a whole number from 0 to 1024'),
    ({'defense': 'pad_shuffle(pad=1e11)'}, r'pad must be a whole number from 0 to 65536, got 1'),
    ({'defense': ' | '.join(['round'] * 3000)}, r"cannot read defense 'round \| round .*\.\.\.nd'"),
    ({'defense': ' | '.join(['round'] * 101)}, r'write at most 100 parts'),
    ({'attack__recover': ' | '.join(['harden'] * 3000)}, r'cannot read recovery'),
    ({'modules': (1,)}, r'modules=\(1,\): write a list, each item a text'),
    ({'modules': ('',)}, r"modules has '': write names such as 'my_losses'"),
    ({'runs': (1,)}, r"runs\[0\]=1: write a dict of dotted fields, such as {'attack.loss'"),
    ({'attack__name': ''}, r"cannot read attack ''"),
    ({'data__name': ''}, r"cannot read data set '': write a name"),
    ({'evaluation__tasks': ('',)}, r"cannot read task '': write a name"),
    ({'evaluation__tasks': ('digits(name="")',)}, r"name='': write a text in quotation marks"),
    (
        {'victim__encoder': 'resnet18(stem="patch", width=1, stages=(1,))'},
        r'a representation of 1 coordinate has no direction to compare; write a wider encoder',
    ),
    (
        {'victim__encoder': 'resnet18(width=60000, stages=(1, 1, 1, 1, 1, 1, 1, 1))'},
        r'victim.encoder=.* would take 16,406,217 GiB, and this machine has .* GiB of memory',
    ),
    (
        {
            'victim__encoder': 'resnet18(stem="patch", width=44, stages=(1,))',
            'defense': ' | '.join(['prada(capacity=1073741824)'] * 10),
        },
        r'defense=.*: the state of an account would take 1,8.. GiB',
    ),
]


@pytest.mark.parametrize(('fields', 'message'), WRONG, ids=lambda x: str(x)[:40])
def test_wrong_input_is_refused_in_one_line(fields, message):
    started = time.monotonic()
    with pytest.raises(UserError, match=message) as caught:
        validate(tiny_run(**fields))
    assert '\n' not in str(caught.value)
    assert time.monotonic() - started < 30


def test_what_the_victim_has_seen_of_a_test_set_is_said(capsys):
    cfg = unexpanded(
        evaluation__tasks=(
            'digits(train="train[200:400]", test="train[:80]")',
            'digits(name="other", train="train[200:400]", test="test")',
        ),
        attack__split='train[80:200]',
    )
    (run,) = prepare(cfg, 'nowhere')
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('note: ')]
    (note,) = notes_of(run, load_sets(run))
    assert said == [f'note: {note}']
    assert note.startswith('64 of the 80 inputs of digits/train[:80] are among those of digits/tra')
    cfg.victim.source = 'checkpoint(path="elsewhere")'
    assert notes_of(make_run(cfg, 'nowhere', MESH), load_sets(run)) == []


def test_near_duplicates_of_test_images_are_counted(capsys, tmp_path):
    digits = data.load('digits', 'train')
    images = np.concatenate([digits.inputs[:400], digits.inputs[:40] // 2 + 9])
    labels = np.concatenate([digits.labels[:400], digits.labels[:40]])
    np.savez(tmp_path / 'set.npz', inputs=images, labels=labels)
    source = f'npz(path="{tmp_path / "set.npz"}", train="all[200:400]", test="all[400:]")'
    cfg = unexpanded(evaluation__tasks=(source,))
    prepare(cfg, 'nowhere')
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('note: ')]
    (line,) = said
    assert 'all[400:] have a near-duplicate among the inputs of the pre' in line
    assert line.startswith('note: 40 of the 40 inputs of npz(')
    vectors = np.random.default_rng(0).normal(size=(60, 5))
    np.savez(tmp_path / 'set.npz', inputs=vectors, labels=np.arange(60) % 2)
    task = make_tasks([source.replace('200:400', ':40').replace('400:', '40:')])[0]
    sets = load_sets(make_run(cfg, 'nowhere', MESH))._replace(tasks=(task,))
    cfg.victim.source = 'checkpoint(path="elsewhere")'
    (note,) = notes_of(make_run(cfg, 'nowhere', MESH), sets._replace(pool=task.train))
    assert note.endswith('all[40:]: near-duplicates are looked for in images of 8 x 8 or more only')


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({}, r"has values of 0 to 255, and attack.query_augmentation='simclr' takes images in"),
        (
            {'attack__plan': 'once', 'attack__query_augmentation': 'none'},
            r"has values of 0 to 255, and victim.augmentation='simclr.* takes images in \[0, 1\]",
        ),
        (
            {
                **{'attack__plan': 'once', 'attack__query_augmentation': 'none'},
                **{'victim__augmentation': 'none', 'attack__strategy': 'consistency(rounds=2)'},
            },
            r'augments images of uint8, and npz.* holds float32 .*; store it as uint8',
        ),
        (
            {
                **{'attack__plan': 'once', 'attack__query_augmentation': 'none'},
                **{'victim__augmentation': 'none', 'attack__strategy': 'longest'},
            },
            r"'longest' compares the lengths of clips or texts, and npz.* holds neither",
        ),
        (
            {
                **{'attack__plan': 'once', 'attack__query_augmentation': 'none'},
                **{'victim__augmentation': 'none', 'defense': 'round(decimals=2)'},
                **{'legitimate__users': ('augmenting(augmentation="flip")',)},
            },
            r'values of 0 to 255, and legitimate.users has .*, which takes images in',
        ),
    ],
)
def test_float_images_of_other_ranges_are_not_augmented(tmp_path, fields, message):
    digits = data.load('digits', 'train[:400]')
    np.savez(tmp_path / 'set.npz', inputs=digits.inputs * 1.0, labels=digits.labels)
    source = f'npz(path="{tmp_path / "set.npz"}"'
    chosen = {'data__name': f'{source})', 'victim__split': 'all[:64]', 'data__size': 0}
    chosen |= {'attack__split': 'all[64:200]', 'attack__plan': 'online'}
    chosen |= {'attack__query_augmentation': 'simclr'}
    tasks = (f'{source}, train="all[:300]", test="all[300:]")',)
    with pytest.raises(UserError, match=message):
        validate(tiny_run(**chosen | fields, evaluation__tasks=tasks))


def test_the_tiny_experiment_is_valid():
    for cfg in config.expand(tiny.get_config()):
        validate(make_run(cfg, 'nowhere', MESH))


def test_more_steps_than_an_int32_counts():
    check_steps('victim.epochs', 10**6, 2_147, 1)
    with pytest.raises(UserError, match='victim.epochs=1000000: .* 2,148,000,000 steps .* 999759'):
        check_steps('victim.epochs', 10**6, 2_148, 1)


@pytest.mark.parametrize('probe', ['lbfgs', 'sgd(epochs=1)'])
@pytest.mark.parametrize(
    ('labels', 'refused'),
    [
        ([0, 0, 0, 0], {'lbfgs': 'num_classes must be at least 2', 'sgd(epochs=1)': 'at least 2'}),
        ([0, 1, 1, 0, 2], {'lbfgs': 'class 2 has a single training example'}),
        ([0, 1, 1, 0, 2, 2], {}),
    ],
)
def test_labels_that_the_probe_cannot_learn_from(probe, labels, refused):
    inputs = np.zeros((len(labels), 2, 2, 3), np.uint8)
    train = data.Dataset(inputs, np.array(labels, np.int32), max(labels) + 1, 'few/train')
    if probe not in refused:
        return try_probe(probe, train)
    with pytest.raises(UserError, match=refused[probe]) as caught:
        try_probe(probe, train)
    assert str(caught.value).startswith(f"evaluation.probe='{probe}' on few/train: ")


class Lowest(NamedTuple):
    distance: jax.Array


def lowest(start):
    """A defense whose state starts at a number that later answers may replace."""
    return Defense(
        lambda key, outputs, inputs: Lowest(jnp.float32(start)),
        lambda outputs, state, *, inputs, where, keys: (outputs, where, state),
    )


def test_an_own_defense_whose_state_holds_infinity(registries_restored):
    @defenses.register('lowest')
    def make_lowest(start: float = math.inf):
        return lowest(start)

    with pytest.raises(UserError, match=r'distance of its state is inf after the first answers'):
        validate(tiny_run(defense='round | lowest'))
    validate(tiny_run(defense='round | lowest(start=9.0)'))


def test_a_counter_that_becomes_infinite_later_is_left_out_with_a_warning():
    chain = defenses.chain(('0_low', lowest(math.inf)), ('1_high', lowest(2.0)))
    state = chain.init(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    with pytest.warns(UserWarning, match='the state of a defense holds low.distance=inf: left out'):
        assert defenses.noticed(state) == {'high.distance': 2.0}


def test_a_loss_that_needs_labels_is_refused_without_them():
    unlabeled = {'attack__data': 'noise', 'attack__split': 'train[:50]'}
    with pytest.raises(UserError, match='labels'):
        validate(tiny_run(attack__loss='supcon', **unlabeled))
    validate(tiny_run(attack__loss='mse', **unlabeled))
    validate(tiny_run(attack__loss='supcon'))


def test_a_loss_of_the_wrong_shape_is_refused(registries_restored):
    @losses.register('unreduced')
    def unreduced():
        return lambda student, teacher, labels=None, where=None: jnp.sum(student, axis=1)

    with pytest.raises(UserError, match=r'its loss must be one float, not float32\[16\]'):
        validate(tiny_run(attack__loss='unreduced'))


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        *(
            ({'attack__loss': loss}, rf"attack.batch_size=1: loss '{loss}' compares .* at least 2")
            for loss in ('infonce', 'softnn', 'barlow', 'supcon', 'cont_steal', 'rda')
        ),
        (
            {'attack__name': 'symmetrized', 'attack__loss': 'symmetrized'},
            "attack.batch_size=1: attack 'symmetrized' compares",
        ),
        (
            {'attack__name': 'recreate_head', 'attack__loss': 'mse'},
            "attack.batch_size=1: attack 'recreate_head' compares",
        ),
        ({'victim__batch_size': 1}, r"victim.batch_size=1: victim method 'simclr.*' compares"),
        (
            {'victim__batch_size': 1, 'victim__method': 'simsiam(hidden=8, dim=8, bottleneck=4)'},
            r"victim.batch_size=1: victim method 'simsiam.*' compares",
        ),
        (
            {'baselines__scratch_epochs': 1, 'baselines__scratch_batch_size': 1},
            r"baselines.scratch_batch_size=1: victim method 'simclr.*' compares",
        ),
        (
            {'attack__loss': 'mse', 'attack__encoder': _ONE_PIXEL, 'baselines__scratch_epochs': 0},
            'attack: its training step cannot be built: BatchNorm has one value of each channel',
        ),
    ],
)
def test_a_batch_of_one_is_refused_where_it_teaches_nothing(fields, message):
    """On one device, before a query is paid."""
    given = {'attack__batch_size': 1, 'baselines__scratch_epochs': 0} | fields
    if 'attack__name' in fields:
        given |= {'attack__plan': 'views(m=2)', 'attack__query_augmentation': 'flip'}
    (cfg,) = config.expand(unexpanded(**given))
    with pytest.raises(UserError, match=message) as caught:
        validate(make_run(cfg, 'nowhere', parallel.data_mesh(1)))
    assert '\n' not in str(caught.value)


def test_a_batch_of_one_is_allowed_where_rows_count_alone():
    cfg = unexpanded(attack__batch_size=1, attack__loss='mse', baselines__scratch_epochs=0)
    (cfg,) = config.expand(cfg)
    validate(make_run(cfg, 'nowhere', parallel.data_mesh(1)))


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ({'attack.bugdet': 5}, r'runs\[1\] sets attack.bugdet=5'),
        ({'atack.budget': 5}, r'runs\[1\] sets atack.budget=5'),
        ({'evaluation.shots': 3}, r'runs\[1\] sets evaluation.shots: all runs share it'),
        ({'attack.budget': 'many'}, r"runs\[1\] sets attack.budget='many'"),
    ],
)
def test_a_wrong_override_names_its_run(override, message):
    cfg = unexpanded()
    cfg.runs = ({}, override)
    with pytest.raises(UserError, match=message):
        list(config.expand(cfg))


def test_runs_expand_in_order_without_repetitions_and_the_command_line_wins():
    cfg = unexpanded()
    cfg.runs = config.grid(attack__budget=(20, 30), attack__loss=('mse', 'cosine'))
    runs = [(run.attack.budget, run.attack.loss) for run in config.expand(cfg)]
    assert runs == [(20, 'mse'), (20, 'cosine'), (30, 'mse'), (30, 'cosine')]
    fixed = [(r.attack.budget, r.attack.loss) for r in config.expand(cfg, ('attack.budget',))]
    assert fixed == [(41, 'mse'), (41, 'cosine')]


def test_a_misspelt_field_is_refused():
    cfg = unexpanded()
    with pytest.raises(AttributeError, match='Did you mean "budget"'):
        cfg.attack.bugdet = 5


def test_a_missing_module_is_named():
    with pytest.raises(UserError, match="there is no module 'no_such_losses'"):
        import_modules(('no_such_losses',))


class TestCheckpoint:
    SPEC = 'resnet18(stem="patch", width=4, stages=(1,))'

    def save(self, folder, spec=SPEC, shape=(8, 8, 3), seed=0):
        network = encoders.make(self.SPEC)
        variables = network.init(jax.random.key(seed), jnp.zeros((1, *shape)))
        checkpoint.save_encoder(folder, variables, {'encoder': spec, 'input_shape': list(shape)})
        return variables

    def attacked(self, folder, **fields):
        return tiny_run(victim__source=f'checkpoint(path="{folder}")', **fields)

    def test_a_saved_encoder_can_be_the_victim(self, tmp_path):
        variables = self.save(tmp_path / 'victim')
        run = self.attacked(tmp_path / 'victim')
        validate(run)
        victim, record = victim_of(run, load_sets(run))
        assert victim.encoder.spec == self.SPEC and victim.traced
        assert record.role == 'victim' and record.address == victim.address and record.bill is None
        jax.tree.map(np.testing.assert_array_equal, victim.encoder.variables, variables)

    def test_another_one_in_the_same_place_is_another_victim(self, tmp_path):
        source, addresses = f'checkpoint(path="{tmp_path}/victim")', []
        for seed in (0, 1, 0):
            self.save(tmp_path / 'victim', seed=seed)
            (run,) = prepare(unexpanded(victim__source=source), 'nowhere')
            addresses.append(victim_of(run, load_sets(run))[0].address)
        assert addresses[0] == addresses[2] != addresses[1]

    def test_without_its_head_it_cannot_answer_with_projections(self, tmp_path):
        self.save(tmp_path / 'victim')
        with pytest.raises(UserError, match='the victim has no projection head'):
            validate(self.attacked(tmp_path / 'victim', attack__name='access_head'))

    def test_another_image_size_is_refused(self, tmp_path):
        self.save(tmp_path / 'victim', shape=(16, 16, 3))
        with pytest.raises(
            UserError, match='takes inputs of 16x16, the data has 8x8: set data.size=16, or prep'
        ):
            validate(self.attacked(tmp_path / 'victim'))

    def test_the_advice_for_a_rectangular_victim_works(self, tmp_path):
        self.save(tmp_path / 'victim', shape=(8, 12, 3))
        with pytest.raises(
            UserError, match='of 8x12, the data has 8x8: prepare the inputs in the shape 8x12, with'
        ):
            validate(self.attacked(tmp_path / 'victim'))
        digits = data.load('digits', 'train[:300]')
        wide = np.pad(digits.inputs, ((0, 0), (0, 0), (2, 2), (0, 0)))
        np.savez(tmp_path / 'wide.npz', inputs=wide, labels=digits.labels)
        source = f'npz(path="{tmp_path / "wide.npz"}"'
        fields = {
            'data__name': f'{source})',
            'data__size': 0,
            'victim__split': 'all',
            'attack__split': 'all[:100]',
            'evaluation__tasks': (f'{source}, train="all[:200]", test="all[200:]")',),
        }
        validate(self.attacked(tmp_path / 'victim', **fields))
        fields['evaluation__tasks'] = ('digits(train="train[300:500]", test="test")',)
        with pytest.raises(UserError, match='of 8x8 and npz.* of 8x12: prepare the inputs in the'):
            validate(self.attacked(tmp_path / 'victim', **fields))

    def test_another_encoder_is_refused(self, tmp_path):
        self.save(tmp_path / 'victim', spec='resnet18(stem="patch", width=8, stages=(1,))')
        with pytest.raises(UserError, match='cannot be read .damaged, or of another encoder'):
            validate(self.attacked(tmp_path / 'victim'))

    def test_a_truncated_one_is_refused(self, tmp_path):
        self.save(tmp_path / 'victim')
        cut = 0
        for path in (tmp_path / 'victim/variables').rglob('d/*'):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            cut += 1
        assert cut
        with pytest.raises(UserError, match='cannot be read .damaged') as caught:
            validate(self.attacked(tmp_path / 'victim'))
        assert '\n' not in str(caught.value)

    def test_a_description_that_is_not_json_is_refused(self, tmp_path):
        self.save(tmp_path / 'victim')
        (tmp_path / 'victim/meta.json').write_text('{"encoder": ')
        with pytest.raises(UserError, match=r'cannot read .*meta.json'):
            validate(self.attacked(tmp_path / 'victim'))
