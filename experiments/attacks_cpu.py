"""Every attack at the same price: two budgets, three seeds, one CIFAR-10 victim, at laptop size.

    python launch.py --config=experiments/attacks_cpu.py --config.data.dir=DIR

DIR holds TFDS copies of cifar10 and fashion_mnist; the victim is the one of cifar10_cpu.py.
Every attack pays for 500 or for 2,000 queries, trains the same student for about as many steps with
the same optimizer, and keeps its own loss, query plan, views and heads. Then direct extraction is
repeated with other images, other strategies of choosing them, and other students.
docs/studies/attacks.md shows what came out.
"""

from ssl_extract import config

EPOCHS = {500: 30, 2_000: 12}  # by budget, over as many images
RANDOM_CROP = 'simclr(strength=0.5, min_scale=0.2)'

ATTACKS = (
    dict(name='direct', loss='mse'),
    dict(name='direct', loss='infonce(temperature=0.07)'),
    dict(name='direct', loss='softnn(temperature=100.0)'),
    dict(name='direct', loss='wasserstein'),
    dict(name='direct', loss='supcon(temperature=0.07)'),
    dict(name='direct', loss='barlow'),
    dict(name='direct', loss='bce'),
    dict(name='direct', loss='softce'),
    dict(name='direct', loss='cosine'),
    dict(name='direct', loss='infonce(temperature=0.07)', plan='views(m=1)',
         query_augmentation=RANDOM_CROP),
    dict(name='direct', loss='infonce(temperature=0.07)', plan='views(m=2)',
         query_augmentation='simclr'),
    dict(name='symmetrized(hidden=128, dim=128, bottleneck=32)', plan='views(m=2)'),
    dict(name='recreate_head(head="simclr(hidden=128, dim=64)")', plan='views(m=2)'),
    dict(name='recreate_head(head="simclr(hidden=128, dim=64)")', plan='views(m=2)', loss='mse'),
    dict(name='access_head(hidden=128)'),
    dict(name='labels'),
    dict(name='posteriors'),
    dict(name='posteriors', strategy='knockoff(rounds=3)'),
    dict(name='stolen_encoder'),  # its authors' lambda 9 and k 9
    dict(name='stolen_encoder(lambda_=20.0, views=1)', loss='mse'),  # as RDA has it
    dict(name='cont_steal', plan='online'),
    dict(name='cont_steal', plan='views(m=1)'),
    dict(name='rda', plan='views(m=10)'),
    dict(name='direct', loss='mse', strategy='kcenter(rounds=3)'),
    dict(name='direct', loss='mse', strategy='consistency(rounds=3)'),
    dict(name='direct', loss='mse', data='fashion_mnist', split='train[:20000]'),
    dict(name='direct', loss='mse', data='noise', split='train[:20000]'),
)  # fmt: skip
STUDENTS = (
    'resnet18(stem="patch", width=12, stages=(1, 1, 1))',
    'resnet18(stem="patch", width=32, stages=(1, 1, 1))',
    'vit(depth=4, width=96, heads=3, patch=4)',
)


def get_config():
    c = config.base()
    c.data.name = 'cifar10'
    c.data.size = 32

    c.victim.split = 'train[:20000]'
    c.victim.encoder = 'resnet18(stem="patch", width=24, stages=(1, 1, 1))'
    c.victim.method = 'simclr(temperature=0.5, hidden=128, dim=64)'
    c.victim.augmentation = RANDOM_CROP
    c.victim.epochs = 15
    c.victim.batch_size = 256
    c.victim.learning_rate = 1e-3

    c.attack.split = 'train[20000:40000]'
    c.attack.batch_size = 64
    c.attack.learning_rate = 1e-3
    c.baselines.scratch_batch_size = 64
    c.cost.dollars_per_1000_queries = 1.0
    c.cost.dollars_per_hour = 0.1  # two cores of a cloud machine

    c.evaluation.tasks = ('cifar10(train="train[40000:]")',)
    c.evaluation.probe = 'lbfgs(l2_grid=(1e-4, 1e-3, 1e-2, 1e-1, 1.0))'
    c.runs = tuple(
        run(seed, budget, **choices)
        for seed in (1, 2, 3)
        for budget in EPOCHS
        for choices in (*ATTACKS, *(students() if budget == 2_000 else ()))
    )
    return c


def run(seed: int, budget: int, **choices: str) -> dict:
    """The overrides of one attack: as many steps as the others, however many views it asks."""
    plan = choices.get('plan', 'once')
    views = int(plan[len('views(m=') : -1]) if plan.startswith('views') else 1
    images = budget // views
    batch_size = min(64, images // 16 * 16)
    epochs = round(EPOCHS[budget] * (budget // 64) / (images // batch_size))
    own = plan != 'online' and 'data' not in choices and 'encoder' not in choices
    return {f'attack.{field}': value for field, value in choices.items()} | {
        'seed': seed,
        'attack.budget': budget,
        'attack.batch_size': batch_size,
        'attack.epochs': epochs,
        'baselines.scratch_epochs': EPOCHS[budget] if own else 0,
    }


def students():
    """Direct extraction into networks of other sizes and another kind than the victim's."""
    return (dict(name='direct', loss='mse', encoder=encoder) for encoder in STUDENTS)
