"""Wrong input ends before any training, in one line that says what to write instead."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ssl_extract import config, encoders, losses
from ssl_extract.errors import UserError
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.modules import import_modules
from ssl_extract.pipeline.run import prepare
from ssl_extract.pipeline.sets import load_sets
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


NO_SCRATCH = {'baselines__scratch_epochs': 0}
NOT_AUGMENTED = {'attack__query_augmentation': 'none'}
WRONG = [
    ({'attack__budget': 0}, r'attack.budget=0: write a number above 0'),
    ({'attack__budget': -5}, r'attack.budget=-5: write a number above 0'),
    ({'attack__budget': 10**12}, r'attack.budget=1000000000000: write at most 1073741824'),
    (
        {'attack__budget': 137},
        r'attack.budget=137: digits/train\[64:200\] has 136 different images',
    ),
    ({'victim__epochs': -1}, r'victim.epochs=-1: write a number above 0'),
    ({'attack__epochs': 0}, r'attack.epochs=0: write a number above 0'),
    ({'attack__learning_rate': float('nan')}, r'attack.learning_rate=nan: write a number above 0'),
    ({'attack__batch_size': 42}, r'attack.batch_size=42 is more than the 41 images'),
    (
        {'attack__batch_size': 15},
        r'attack.batch_size=15 must be a multiple of the 4 devices; try 16',
    ),
    ({'victim__batch_size': 65}, r'victim.batch_size=65 is more than the 64 images'),
    ({'seed': -1}, r'seed=-1: write a number from 0'),
    ({'attack__loss': 'infonse'}, r"unknown loss 'infonse': did you mean 'infonce'"),
    ({'attack__loss': 'infonce(temp=1)'}, r'it takes \(temperature: float = 0.07\)'),
    ({'attack__loss': 'infonce(temperature=0)'}, r'temperature'),
    ({'attack__name': 'direkt'}, r"unknown attack 'direkt': did you mean 'direct'"),
    ({'attack__plan': 'twice'}, r"unknown query plan 'twice'"),
    (
        {'attack__query_augmentation': 'flip'},
        r"plan 'once' asks each image as it is; write attack.plan='views\(m=1\)' or 'online'",
    ),
    (
        {'attack__plan': 'views(m=3)'},
        r"would ask the same image 3 times; .*, or attack.plan='repeat\(m=3\)'",
    ),
    ({'attack__plan': 'repeat(m=0)'}, r'm=0'),
    ({'attack__plan': 'views(m=0)'}, r'm=0: write a whole number'),
    (
        {'attack__name': 'symmetrized', 'attack__plan': 'views(m=1)'},
        r"works with 2 views of an image, and the plan stores 1: write attack.plan='views\(m=2\)'",
    ),
    (
        {'attack__name': 'recreate_head', 'attack__plan': 'once', **NOT_AUGMENTED},
        r"recreate_head trains its head .* write attack.plan='views\(m=2\)'",
    ),
    ({'attack__name': 'rda(views=0)', 'attack__batch_size': 4, **NO_SCRATCH}, r'views=0'),
    ({'attack__name': 'stolen_encoder(lambda_=-1)'}, r'lambda_=-1'),
    ({'attack__strategy': 'kcentr'}, r"unknown query strategy 'kcentr': did you mean 'kcenter'"),
    ({'attack__strategy': 'kcenter(rounds=4)'}, r'pays for 41 images, 10 a round, fewer than'),
    (
        {'attack__strategy': 'kcenter(rounds=2)', 'attack__plan': 'online'},
        r"plan 'online' asks views of all of the attacker's images",
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
    ({'cost__dollars_per_hour': -1.0}, r'cost.dollars_per_hour=-1.0: write a number of at least 0'),
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
    (
        {'attack__accounts': 2, 'attack__overlap': 0},
        r"attack.overlap=20, or attack.name='direct\(adapter=True\)'",
    ),
    (
        {'attack__plan': 'near_duplicates(m=2)', 'attack__query_augmentation': 'flip'},
        r"plan 'near_duplicates\(m=2\)' asks each image as it is",
    ),
    ({'attack__accounts': 0}, r'attack.accounts=0: write a number above 0'),
    ({'legitimate__users': ('narow',)}, r"'narow': did you mean 'narrow'"),
    ({'legitimate__users': ('narrow(classes=11)',)}, r'classes=11: the first task has 10'),
    ({'legitimate__model': 'svm'}, r"unknown legitimate user's model 'svm'"),
    ({'legitimate__images': 0}, r'legitimate.images=0: write a number above 0'),
    ({'legitimate__test_images': -1}, r'legitimate.test_images=-1: write a number from 0'),
    ({'victim__method': 'byol'}, r"unknown victim method 'byol'"),
    ({'victim__encoder': 'resnet19'}, r"unknown encoder 'resnet19': did you mean"),
    ({'victim__encoder': 'vit(patch=3)'}, r'patch'),
    ({'victim__augmentation': 'simclr(flipp=1)'}, r'flipp'),
    ({'victim__split': 'training'}, r'training'),
    ({'victim__split': 'train[5:5]'}, r'train\[5:5\]'),
    ({'data__name': 'cifar11'}, r'cifar11'),
    ({'data__dir': '/nonexistent', 'data__name': 'cifar10'}, r'cifar10'),
    ({'evaluation__probe': 'svm'}, r"unknown probe 'svm'"),
    ({'evaluation__probe': 'lbfgs(l2_grid=(-1.0,))'}, r'l2_grid must hold numbers > 0'),
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
]


@pytest.mark.parametrize(('fields', 'message'), WRONG, ids=lambda x: str(x)[:40])
def test_wrong_input_is_refused_in_one_line(fields, message):
    started = time.monotonic()
    with pytest.raises(UserError, match=message) as caught:
        validate(tiny_run(**fields))
    assert '\n' not in str(caught.value)
    assert time.monotonic() - started < 30


def test_the_tiny_experiment_is_valid():
    for cfg in config.expand(tiny.get_config()):
        validate(make_run(cfg, 'nowhere', MESH))


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
            UserError, match='takes inputs of 16x16, the data has 8x8: set data.size'
        ):
            validate(self.attacked(tmp_path / 'victim'))

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
