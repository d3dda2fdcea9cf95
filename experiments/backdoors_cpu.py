"""Does the backdoor survive the theft? Poisoned victims, stolen, on CIFAR-10 at laptop size.

    python launch.py --config=experiments/backdoors_cpu.py --config.data.dir=DIR
    python launch.py --config=experiments/backdoors_cpu.py:survival --config.data.dir=DIR
    python launch.py --config=experiments/backdoors_cpu.py:training --config.data.dir=DIR

DIR holds a TFDS copy of cifar10. The first command pretrains victims by three methods on 10,000
images of 16 x 16 pixels: without poison, with a patch in nine tenths of the images of the target
class, and with CTRL's invisible trigger in as many. Each is measured on clean images, and on the
task of each trigger, whose accuracy is the share of triggered images of other classes that are
taken for the target class. The second steals the victims of SimCLR with a patch, and without
poison: by seven attacks, two of them with a quarter of the queries too, by clean queries and by
queries of which 5 % hold the trigger, and behind four defenses. The third has the poisoned victim
of SimCLR after shorter trainings. Every run has five seeds, of the victim and of the attack; the
poisoned images are the same. The commands may share a workdir, and go on after a stop.
"""

import functools
from typing import NamedTuple

from ssl_extract import config

SEEDS = (1, 2, 3, 4, 5)
MARGIN = 0.02
TARGET = 0


class Poison(NamedTuple):
    """What is put into the images of the target class.

    Attributes:
        triggers: that of the poisoned images, and that of the test, by a name. CTRL's authors test
            with twice as much.
        rate: poisoned images as a share of the whole set.
    """

    triggers: dict[str, tuple[str, str]]
    rate: float


# A quarter of an image, and nine tenths of a class: less of both hardly takes in 60 epochs.
SMALL = Poison(
    {
        'patch': ('patch(size=8)', 'patch(size=8)'),
        'ctrl': (
            'ctrl(magnitude=50.0, frequencies=(7, 15), window=16)',
            'ctrl(magnitude=100.0, frequencies=(7, 15), window=16)',
        ),
    },
    rate=0.09,  # nine tenths of a class
)
METHODS = {
    'simclr': 'simclr(temperature=0.5, hidden=256, dim=128)',
    'simsiam': 'simsiam(hidden=256, dim=256, bottleneck=64)',
    'byol': 'byol(hidden=256, dim=128)',
}
VICTIM = {
    'encoder': 'resnet18(stem="patch", width=16, stages=(1, 1, 1))',
    'augmentation': (
        'random_resized_crop(scale=(0.2, 1.0)) | flip(p=0.5) | '
        'color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8) | grayscale(p=0.2)'
    ),
    'split': 'train[:10000]',
    'epochs': 60,
    'batch_size': 256,
    'learning_rate': 5e-3,
    'schedule': 'cosine(warmup=0.05)',
}
PARTS = (1, 2, 3, 6)  # of the epochs, in the part 'training'
LABELED = 'train[40000:44000]'
BUDGETS = {1_000: 24, 4_000: 10}  # and epochs
THEFTS = (
    dict(name='direct', loss='mse'),
    dict(name='direct', loss='infonce(temperature=0.07)'),
    dict(name='direct', loss='softnn(temperature=100.0)'),
    dict(name='stolen_encoder(lambda_=20.0, views=1)', loss='mse'),
    dict(name='rda', plan='views(m=10)'),
    dict(name='labels'),
    dict(name='posteriors'),
)
FEW = ('mse', 'infonce(temperature=0.07)')  # with both budgets
STOLEN = 'patch'  # the trigger that took
DEFENSES = ('gaussian_noise(stddev=1.0)', 'round(decimals=0)', 'top_k(k=16)', 'affine')


def get_config(part: str = '', poison: Poison = SMALL, pretraining: dict = VICTIM):
    c = config.base()
    c.data.name = 'cifar10'
    c.data.size = 16
    c.victim.update(pretraining)
    c.attack.data = 'cifar10'
    c.attack.split = 'train[10000:30000]'
    c.attack.batch_size = 64
    c.attack.learning_rate = 1e-3
    c.baselines.scratch_epochs = 0
    c.evaluation.probe = 'lbfgs(l2_grid=(1e-4, 1e-3, 1e-2, 1e-1, 1.0))'
    c.evaluation.tasks = (
        f'cifar10(train="{LABELED}")',
        *(
            f'backdoor("cifar10", trigger="{shown}", target={TARGET}, train="{LABELED}", '
            f'name="{name}")'
            for name, (_, shown) in poison.triggers.items()
        ),
    )
    through = functools.partial(training, epochs=pretraining['epochs'])
    parts = {'': victims, 'survival': survival, 'training': through}
    conditions, c.report.comparisons = parts[part](poison)
    c.runs = tuple({'seed': s, 'victim.seed': s, **each} for s in SEEDS for each in conditions)
    return c


def victims(poison: Poison):
    """Conditions and comparisons: every method and trigger, with poison against without."""
    theft = {'attack.loss': 'mse', **budget(1_000)}
    conditions = [victim(poison, m, t) | theft for m in METHODS for t in ('', *poison.triggers)]
    comparisons = tuple(
        {
            'name': f'{trigger}, {method}: poisoned against clean, {task}',
            'new': {'role': 'victim', **victim(poison, method, trigger), **theft},
            'old': {'role': 'victim', **victim(poison, method), **theft},
            'task': task,
            'margin': MARGIN,
        }
        for method in METHODS
        for trigger in poison.triggers
        for task in (trigger, 'cifar10')
    )
    return conditions, comparisons


def training(poison: Poison, epochs: int):
    """Conditions and comparisons: the poisoned victim after shorter trainings."""
    theft = {'attack.loss': 'mse', **budget(1_000)}
    new, *others = [
        victim(poison, 'simclr', STOLEN) | {'victim.epochs': epochs // part} | theft
        for part in PARTS
    ]
    comparisons = tuple(
        {
            'name': f'{metric} after {epochs} against {old["victim.epochs"]} epochs',
            'new': {'role': 'victim', **new},
            'old': {'role': 'victim', **old},
            'task': STOLEN,
            'metric': metric,
            'margin': MARGIN,
        }
        for old in others
        for metric in ('linear_probe', 'entanglement')
    )
    return [new, *others], comparisons


def survival(poison: Poison):
    """Conditions and comparisons: what was stolen from a poisoned victim, against a clean one."""
    conditions, comparisons = [], []
    for name, theft in thefts(poison).items():
        new, old = victim(poison, 'simclr', STOLEN) | theft, victim(poison, 'simclr') | theft
        conditions += [new, old]
        comparisons.append(
            {
                'name': f'{name}: of a poisoned victim against of a clean one',
                'new': new,
                'old': old,
                'task': STOLEN,
                'margin': MARGIN,
            }
        )
    return conditions, tuple(comparisons)


def thefts(poison: Poison) -> dict[str, dict]:
    """The overrides of all thefts of one victim, by a name."""
    found, (few, many) = {}, BUDGETS
    for theft in THEFTS:
        views = 10 if theft.get('plan', '').startswith('views') else 1
        choices = {f'attack.{field}': value for field, value in theft.items()}
        both = theft['name'] == 'direct' and theft['loss'] in FEW
        for queries in (few, many) if both else (many,):
            named = f'{", ".join(theft.values())}, {queries:,} queries'
            found[named] = choices | budget(queries, views)
    direct = {'attack.loss': 'mse', **budget(many)}
    placed, _ = poison.triggers[STOLEN]
    queries = f'poisoned("cifar10", trigger="{placed}", target=None, rate=0.05)'
    found['mse, triggers among the queries'] = direct | {'attack.data': queries}
    for defense in DEFENSES:
        found[f'mse behind {defense}'] = direct | {'defense': defense}
    return found


def budget(queries: int, views: int = 1) -> dict:
    """The overrides of a budget: as many steps, however many views of an image are asked."""
    images = queries // views
    batch_size = min(64, images // 16 * 16)
    epochs = round(BUDGETS[queries] * (queries // 64) / (images // batch_size))
    return {
        'attack.budget': queries,
        'attack.batch_size': batch_size,
        'attack.epochs': epochs,
    }


def victim(poison: Poison, method: str, trigger: str = '') -> dict:
    """The overrides of a victim; '' is one without poison."""
    of = {'data.name': 'cifar10', 'victim.method': METHODS[method]}
    if trigger:
        placed, _ = poison.triggers[trigger]
        how = f'trigger="{placed}", target={TARGET}, rate={poison.rate}'
        of['data.name'] = f'poisoned("cifar10", {how})'
    return of
