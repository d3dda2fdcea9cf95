"""Every attack at the same price: 2,000 queries, five seeds, one CIFAR-10 victim, at laptop size.

    python launch.py --config=experiments/attacks_cpu.py --config.data.dir=DIR

DIR holds TFDS copies of cifar10 and fashion_mnist; the victim is the one of cifar10_cpu.py.
Every attack pays for 2,000 queries, trains the same student for about as many steps with the same
optimizer, and keeps its own loss, query plan, views and heads. Then direct extraction is repeated
with other images, other strategies of choosing them, and other students: 150 runs.
docs/studies/attacks.md shows what came out. `attacks_cpu.py:few` is the same with 500 queries.

A second victim is the same command with another workdir and `--config.victim.seed=1`;
`ssl-extract report DIR DIR --out=DIR` then tests both victims as one family.

Time, for a network that trains on 3,000 images/s: surrogates 40 minutes (24,000 images each, and
two or more views or networks in half of the attacks), evaluations 13 (150, of 20,000 images each),
programs and choices of queries 5: about an hour on two quiet cores, 40 minutes with 500 queries;
2.5 times as long at twice the width.

The family of comparisons, 27 in all: every other attack against direct extraction with mse, and
that against pretraining from scratch. Two points count as none, as in cifar10_cpu.py.
"""

import cifar10_cpu
from cifar10_cpu import MARGIN, SEEDS

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
    'resnet18(stem="patch", width=16, stages=(1, 1, 1))',
    'resnet18(stem="patch", width=48, stages=(1, 1, 1))',
    'vit(depth=4, width=96, heads=3, patch=4)',
)


def get_config(queries: str = ''):
    budget = {'': 2_000, 'few': 500}[queries]
    c = cifar10_cpu.setting()
    c.attack.budget = budget
    c.cost.dollars_per_1000_queries = 1.0
    c.cost.dollars_per_hour = 0.1  # two cores of a cloud machine
    c.evaluation.tasks = ('cifar10(train="train[40000:]")',)
    c.runs = tuple(
        {'seed': seed, **condition(budget, **choices)}
        for seed in SEEDS
        for choices in (*ATTACKS, *students())
    )
    c.report.comparisons = family(budget)
    return c


def condition(budget: int, **choices: str) -> dict:
    """The overrides of one attack: as many steps as the others, however many views it asks."""
    plan = choices.get('plan', 'once')
    views = int(plan[len('views(m=') : -1]) if plan.startswith('views') else 1
    images = budget // views
    batch_size = min(64, images // 16 * 16)
    epochs = round(EPOCHS[budget] * (budget // 64) / (images // batch_size))
    own = plan != 'online' and 'data' not in choices and 'encoder' not in choices
    return {f'attack.{field}': value for field, value in choices.items()} | {
        'attack.batch_size': batch_size,
        'attack.epochs': epochs,
        'baselines.scratch_epochs': EPOCHS[budget] if own else 0,
    }


def students():
    """Direct extraction into networks of other sizes and another kind than the victim's."""
    return (dict(name='direct', loss='mse', encoder=encoder) for encoder in STUDENTS)


def family(budget: int) -> tuple[dict, ...]:
    """The comparisons that are tested together."""
    mse, *others = (condition(budget, **choices) for choices in ATTACKS)
    names = (', '.join(choices.values()) for choices in ATTACKS[1:])
    return (
        *(
            {'name': f'{name} against direct, mse', 'new': other, 'old': mse, 'margin': MARGIN}
            for name, other in zip(names, others, strict=True)
        ),
        {
            'name': 'direct, mse against from scratch',
            'new': mse,
            'old': {'role': 'scratch', **mse},
            'margin': MARGIN,
        },
    )
