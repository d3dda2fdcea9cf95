"""Tables 2, 7 and 8 of the paper at laptop size: four losses, three budgets, five seeds.

    python launch.py --config=experiments/cifar10_cpu.py --config.data.dir=DIR

DIR holds TFDS copies of cifar10 and fashion_mnist. One victim, direct extraction with mse, infonce,
softnn and wasserstein at 500, 1,000 and 4,000 queries, five seeds, linear probes on CIFAR-10 and
Fashion-MNIST: 60 runs. docs/studies/results.md shows what came out.

`cifar10_cpu.py:simsiam` is the same study of a second victim, by SimSiam, of the same network and
images; from scratch is SimCLR there too, the better of both.
`cifar10_cpu.py:longer` trains on 500 queries, and from scratch, four times as long: three runs.

Time, for a network that trains on 3,000 images/s: surrogates 10 minutes (20,000 to 48,000 images
each), from scratch 6 (two views), evaluations 14 (80, of 40,000 images and two probes each): about
30 minutes on two quiet cores, and an hour for both victims; 2.5 times as long at twice the width.

The family of comparisons, 18 in all: each other loss against mse, at every budget; mse, infonce and
softnn with 4,000 queries against the victim; the best loss against pretraining from scratch, at
every budget; 4,000 queries against 500 with mse and with infonce; and the best loss against an
untrained network on Fashion-MNIST. Two points count as none: a tenth of what training gives a
victim of 60 % over an untrained network of 40 %.
"""

import cifar10_victim

from ssl_extract import config

BUDGETS = {500: 40, 1_000: 25, 4_000: 12}  # queries, and epochs over their answers
INFONCE, SOFTNN = 'infonce(temperature=0.07)', 'softnn(temperature=100.0)'
LOSSES = ('mse', INFONCE, SOFTNN, 'wasserstein')
SEEDS = (1, 2, 3, 4, 5)
MARGIN = 0.02  # two points of accuracy
# The victim of the three CPU studies, the second one, and the width of their answers.
VICTIM = {'source': 'stored("cifar10_simclr")', **cifar10_victim.recipe('simclr')}
SECOND = 'stored("cifar10_simsiam")'
WIDTH = 256


def get_config(which: str = ''):
    c = setting()
    if which not in ('', 'simsiam', 'longer'):
        raise ValueError(f'cifar10_cpu.py:{which}: write simsiam, longer, or nothing')
    if which == 'simsiam':
        c.victim.source = SECOND
    if which == 'longer':
        longer = {'attack.epochs': 160, 'baselines.scratch_epochs': 160}
        c.evaluation.tasks = ('cifar10(train="train[40000:]")',)
        c.baselines.random = False
        c.runs = tuple({'seed': seed, **condition(500, 'mse'), **longer} for seed in SEEDS[:3])
        return c
    c.evaluation.tasks = (
        'cifar10(train="train[40000:]")',
        'fashion_mnist(train="train[:10000]")',
    )
    c.runs = tuple(
        {'seed': seed, **condition(budget, loss)}
        for seed in SEEDS
        for budget in BUDGETS
        for loss in LOSSES
    )
    c.report.comparisons = family()
    return c


def setting():
    """The data, the victim and the optimization that the three CPU studies share."""
    c = config.base()
    c.data.name = 'cifar10'
    c.data.size = 32
    c.victim.update(VICTIM)
    c.attack.split = 'train[20000:40000]'  # the victim saw them, as all of CIFAR-10
    c.attack.batch_size = 64
    c.attack.learning_rate = 1e-3
    c.baselines.scratch_batch_size = 64
    c.evaluation.probe = 'lbfgs(l2_grid=(1e-4, 1e-3, 1e-2, 1e-1, 1.0))'
    return c


def condition(budget: int, loss: str) -> dict:
    """The overrides of the runs with one loss and budget, over all seeds."""
    return {
        'attack.budget': budget,
        'attack.epochs': BUDGETS[budget],
        'baselines.scratch_epochs': BUDGETS[budget],
        'attack.loss': loss,
    }


def family() -> tuple[dict, ...]:
    """The comparisons that are tested together."""
    best = {budget: tuple(condition(budget, loss) for loss in LOSSES) for budget in BUDGETS}

    def compare(name: str, new: dict | tuple, old: dict, **rest: str) -> dict:
        return {'name': name, 'new': new, 'old': old, 'margin': MARGIN, **rest}

    return (
        *(
            compare(
                f'{loss} against mse, {budget:,} queries',
                condition(budget, loss),
                condition(budget, 'mse'),
            )
            for budget in BUDGETS
            for loss in LOSSES[1:]
        ),
        *(
            compare(
                f'{loss} with 4,000 queries against the victim',
                condition(4_000, loss),
                {'role': 'victim', **condition(4_000, loss)},
            )
            for loss in LOSSES[:3]
        ),
        *(
            compare(
                f'the best loss against from scratch, {budget:,} queries',
                best[budget],
                {'role': 'scratch', **condition(budget, 'mse')},
            )
            for budget in BUDGETS
        ),
        *(
            compare(
                f'4,000 queries against 500, {loss}', condition(4_000, loss), condition(500, loss)
            )
            for loss in LOSSES[:2]
        ),
        compare(
            'the best loss with 4,000 queries against an untrained network',
            best[4_000],
            {'role': 'random', **condition(4_000, 'mse')},
            task='fashion_mnist',
        ),
    )
