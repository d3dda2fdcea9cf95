"""EfficientNet-Lite0 of ImageNet, stolen and defended at laptop size with images of CIFAR-10.

    python launch.py --config=experiments/pretrained_cpu.py --config.data.dir=DIR

DIR holds TFDS copies of cifar10 and fashion_mnist. pretrained/efficientnet_lite0.py says how to
install the victim: a supervised encoder, a plain function that computes each image once for all
runs, and answers with 1,280 numbers.

Attacks: direct extraction with mse, infonce and softnn, StolenEncoder (one augmented view, as RDA
has it) and RDA, which pays for ten views of each image, at 500, 2,000 and 8,000 queries; and two
other students at 2,000. Linear probes on CIFAR-10 and Fashion-MNIST, five seeds.

Defenses: noise of one and of four times the deviation of a coordinate of the answers, a secret map,
a guard against similar queries, buckets, a sixteenth of the coordinates, and prediction poisoning,
whose owner trains a network like the attacker's on answers to 2,000 images of its own; at 2,000
queries. Behind each stand direct extraction and the attackers made for it, and the same attackers
without it; beside them two kinds of users, who adapt too.

Time: the victim computes 10,000 images of the pool, 27,000 of tasks and owner and 60,000 views, 10
minutes of one core at 170 a second. All 220 runs took about two and a half hours of two cores that
had other work too; docs/studies/pretrained.md has what came out. The same command goes on after a
stop; `--run_index` splits it.

The family of comparisons, 34 in all: every other attack against direct extraction with mse, at
every budget; the best direct extraction against pretraining from scratch, at every budget, and
against the victim with 8,000 queries; 8,000 queries against 500; the best attack with 8,000 queries
against an untrained network on Fashion-MNIST; the other students against the first; behind each
defense the best of its attackers against the best of the same without it, and the broad user
against itself without it. Two points count as none, as in cifar10_cpu.py.
"""

import cifar10_cpu
from cifar10_cpu import INFONCE, MARGIN, SEEDS, SOFTNN
from pretrained import efficientnet_lite0 as lite0

BUDGETS = {500: 40, 2_000: 16, 8_000: 6}  # queries, and epochs over their answers
MIDDLE, MOST = 2_000, 8_000
# Of a coordinate of the victim's answers, root mean square, over the first 2,000 images.
DEVIATION = 1.08
SOURCE = (
    f'function("pretrained.efficientnet_lite0:encode", dim={lite0.DIM}, '
    f'address="EfficientNet-Lite0 0.1.0 at {lite0.SIZE} pixels")'
)
MSE = {'attack.loss': 'mse'}
DIRECT = (MSE, {'attack.loss': INFONCE}, {'attack.loss': SOFTNN})
STOLEN_ENCODER = MSE | {'attack.name': 'stolen_encoder(lambda_=20.0, views=1)'}
RDA = {'attack.name': 'rda', 'attack.plan': 'views(m=10)'}
ATTACKS = (*DIRECT, STOLEN_ENCODER, RDA)
STUDENTS = tuple(
    MSE | {'attack.encoder': encoder}
    for encoder in (
        'resnet18(stem="patch", width=16, stages=(1, 1, 1))',
        'vit(depth=4, width=96, heads=3, patch=4)',
    )
)

ADAPTER = {'attack.name': 'direct(adapter=True)'}
REPEAT = MSE | {'attack.plan': 'repeat(m=4)'}
SHRINK = MSE | {'attack.recover': 'shrink'}
PAIRS = DIRECT[1] | {'attack.plan': 'views(m=2)', 'attack.query_augmentation': 'simclr'}
APART = MSE | ADAPTER | {'attack.accounts': 3, 'attack.overlap': 0}
NOISE = (MSE, REPEAT, SHRINK)
DEFENSES = {
    f'gaussian_noise(stddev={DEVIATION})': NOISE,
    f'gaussian_noise(stddev={4 * DEVIATION})': NOISE,
    'affine': (MSE, DIRECT[1] | ADAPTER, APART),
    'similarity_guard(threshold=0.95)': (MSE, PAIRS, PAIRS | {'attack.recover': 'drop_outliers'}),
    'bucket_coverage(bits=8, alpha=10.0)': (
        MSE,
        MSE | {'attack.strategy': 'stay_close(rounds=4)'},
        SHRINK,
    ),
    f'top_k(k={lite0.DIM // 16})': DIRECT[:2],
    'prediction_poisoning(radius=1.0)': (MSE, MSE | {'attack.recover': 'project_out'}),
}


def get_config():
    c = cifar10_cpu.setting()
    c.victim.source = SOURCE
    c.victim.split = 'train[10000:20000]'  # of the owner, and not of the attackers
    c.attack.encoder = c.victim.encoder
    c.attack.split = 'train[:10000]'
    c.attack.name = 'direct'
    c.legitimate.users = ('broad', 'narrow(classes=3)')
    c.legitimate.images = 1_000
    c.legitimate.test_images = 1_000
    c.legitimate.repeats = (1, 4)
    c.evaluation.victim = 'ask'
    # With fewer labels than coordinates, penalties below 0.01 take 25 times as long, for no gain.
    c.evaluation.probe = 'lbfgs(l2_grid=(1e-2, 1e-1, 1.0))'
    c.evaluation.tasks = (
        'cifar10(train="train[40000:45000]")',
        'fashion_mnist(train="train[:5000]", test="test[:5000]")',
    )
    conditions = [condition(budget, attack) for budget in BUDGETS for attack in ATTACKS]
    conditions += [condition(MIDDLE, student) for student in STUDENTS]
    conditions += [
        condition(MIDDLE, attack, defense)
        for name, attacks in DEFENSES.items()
        for defense in ('', name)
        for attack in attacks
    ]
    distinct = {repr(sorted(overrides.items())): overrides for overrides in conditions}.values()
    c.runs = tuple({'seed': seed, **overrides} for overrides in distinct for seed in SEEDS)
    c.report.comparisons = family()
    return c


def condition(budget: int, attack: dict, defense: str = '') -> dict:
    """The overrides of one attacker: as many steps as others, however many views it asks."""
    views = {'views(m=2)': 2, 'views(m=10)': 10, 'repeat(m=4)': 4}
    images = budget // views.get(attack.get('attack.plan'), 1)
    batch_size = min(64, images // 16 * 16)
    epochs = round(BUDGETS[budget] * (budget // 64) / (images // batch_size))
    return attack | {
        'defense': defense,
        'attack.budget': budget,
        'attack.batch_size': batch_size,
        'attack.epochs': epochs,
        'baselines.scratch_epochs': BUDGETS[budget] if attack == MSE and not defense else 0,
    }


def family() -> tuple[dict, ...]:
    """The comparisons that are tested together."""
    comparisons = []

    def compare(name: str, new: dict | tuple, old: dict | tuple, **rest: str) -> None:
        comparisons.append({'name': name, 'new': new, 'old': old, 'margin': MARGIN, **rest})

    names = ('mse', 'infonce', 'softnn', 'StolenEncoder', 'RDA')
    for budget in BUDGETS:
        first, *others = (condition(budget, attack) for attack in ATTACKS)
        for name, other in zip(names[1:], others, strict=True):
            compare(f'{name} against mse, {budget:,} queries', other, first)
        best = (first, *others[: len(DIRECT) - 1])
        scratch = {'role': 'scratch', **first}
        compare(f'best direct extraction against from scratch, {budget:,} queries', best, scratch)
    most, few = (tuple(condition(b, a) for a in DIRECT) for b in (MOST, 500))
    compare(
        'best direct extraction, 8,000 queries, against the victim',
        most,
        {'role': 'victim', **most[0]},
    )
    compare('8,000 queries against 500, best direct extraction', most, few)
    compare(
        'best attack with 8,000 queries against an untrained network',
        tuple(condition(MOST, attack) for attack in ATTACKS),
        {'role': 'random', **most[0]},
        task='fashion_mnist',
    )
    for name, student in zip(('half as wide', 'ViT'), STUDENTS, strict=True):
        compare(
            f'student {name} against the first', condition(MIDDLE, student), condition(MIDDLE, MSE)
        )
    for defense, attacks in DEFENSES.items():
        behind, without = (
            tuple(condition(MIDDLE, attack, name) for attack in attacks) for name in (defense, '')
        )
        compare(f'best attacker behind {defense}', behind, without)
        user = {'role': 'legitimate', 'user': 'broad'}
        compare(
            f'broad user behind {defense}',
            user | behind[0],
            user | without[0],
            metric='user_accuracy',
        )
    return tuple(comparisons)
