"""Every defense with the attackers made for it and with users, five seeds, one CIFAR-10 victim.

    python launch.py --config=experiments/defenses_cpu.py --config.data.dir=DIR

DIR holds a TFDS copy of cifar10; the victim is the one of cifar10_cpu.py. All attackers have 3,000
queries and about as many steps. docs/studies/defenses.md shows what came out.

The rule that chose the runs: every defense once, at its main strength, which is the one that has a
control beside it (noise of one stddev, with and without a shift) or that took most before. Behind
each stand direct extraction with two losses, and what the literature has against its kind: an
average of repeated queries and a shrinkage against noise, an adapter against secret maps, several
accounts against what an account remembers, and so on. All of these attackers, and no other, stand
without a defense too: a defense is compared with the best of the same attackers. Beside them stand
three kinds of users, who adapt: each drops outliers, shrinks or averages four answers to a query,
whichever is best on validation images of its own. Posteriors are asked only where a defense marks
them.

Time, for a network that trains on 3,000 images/s: 490 surrogates of 12,000 images 35 minutes,
evaluations of 15,000 images each 35, users 60, shadows and denoising networks 10: 2 h 20 min on two
quiet cores, twice as long at twice the width; `--run_index` splits it.

The family of comparisons, 42 in all: behind each defense the best of its attackers against the best
of the same without it, and the broad user against itself without it. Two points count as none, as
in cifar10_cpu.py.

`defenses_cpu.py:added` has two attackers more, in the same workdir: mse with an adapter, and mse
that drops outliers. `defenses_cpu.py:strengths` has the same attackers behind the other strengths,
and `defenses_cpu.py:marks` attackers of marked representations. In `defenses_cpu.py:elsewhere` is
bucket coverage alone with the users that it is made for: they ask about images of another kind,
Fashion-MNIST (in DIR too), and as often as the attacker, 3,000 times.
"""

import cifar10_cpu
from cifar10_cpu import MARGIN, SEEDS, WIDTH

BUDGET, EPOCHS = 3_000, 4
MSE = {'attack.loss': 'mse'}
INFONCE = {'attack.loss': 'infonce(temperature=0.07)'}
PAIRS = INFONCE | {'attack.plan': 'views(m=2)', 'attack.query_augmentation': 'simclr'}
POSTERIORS = {'attack.name': 'posteriors'}
HARDEN = POSTERIORS | {'attack.recover': 'harden'}
ADAPTER = {'attack.name': 'direct(adapter=True)'}  # learns the secret map's inverse
STAY = MSE | {'attack.strategy': 'stay_close(rounds=4)'}  # asks about like images only
REPEAT = MSE | {'attack.plan': 'repeat(m=4)'}  # asks again and averages
NEAR = MSE | {'attack.plan': 'near_duplicates(m=4)'}  # the same where noise is keyed by the image
DENOISE = MSE | {'attack.recover': 'denoise'}  # recognizes the defense, and undoes it
SHRINK = MSE | {'attack.recover': 'shrink'}
DROP = {'attack.recover': 'drop_outliers'}
ELIMINATE = MSE | {'attack.recover': 'cluster_select_eliminate'}  # the directions of a mark
UNMOVED = PAIRS | {'attack.recover': 'semantic_perturbation'}  # drops inputs that look marked


def sybils(accounts: int, budget: int = BUDGET) -> dict:
    """Several accounts with maps between their answers, fitted on inputs that all of them ask.

    These are five per coordinate, or as many as nine tenths of the budget pay for.
    """
    overlap = min(5 * WIDTH, budget * 9 // 10 // accounts)
    return MSE | {'attack.accounts': accounts, 'attack.overlap': overlap}


def apart(accounts: int) -> dict:
    """Several accounts without one image in common, each with an adapter of its own."""
    return MSE | ADAPTER | {'attack.accounts': accounts, 'attack.overlap': 0}


BASIC = (MSE, INFONCE)
NOISE = (*BASIC, REPEAT, SHRINK, DENOISE)
SHIFT = (*BASIC, MSE | {'attack.recover': 'subtract_shift'}, DENOISE)
KEYED = (*BASIC, NEAR, SHRINK, DENOISE)
COARSE = (*BASIC, DENOISE)  # less of an answer
SECRET = (*BASIC, INFONCE | ADAPTER, apart(3))
SIMILAR = (*BASIC, PAIRS, PAIRS | DROP, sybils(2))
COVERAGE = (*BASIC, STAY, sybils(2), SHRINK)
MAPPED = (*BASIC, INFONCE | ADAPTER, sybils(2), apart(3))
WATCHED = (*BASIC, STAY, sybils(2))
POISONED = (*BASIC, INFONCE | ADAPTER, DENOISE, MSE | {'attack.recover': 'project_out'})
LIMITED = (*BASIC, sybils(2), apart(3))
PAID = (*BASIC, STAY)
INHERITED = (*BASIC, ELIMINATE, UNMOVED)
MARKED = (
    POSTERIORS,
    HARDEN,
)  # of a classifier's answers: label stealing is direct extraction there

# The W below which one account in ten falls of users who ask about CIFAR-10 as the users here do:
# `python -m ssl_extract.studies.detection --victim=cifar10_simclr --data_dir=DIR --histories=8
# --rates=0.1`.
PRADA = 'prada(delta=0.962, then="gaussian_noise(stddev=2.0)")'
MAIN = {
    'gaussian_noise(stddev=1.0)': NOISE,  # the control of the shift too
    'gaussian_noise(mean=10.0, stddev=1.0)': SHIFT,
    'gaussian_noise(stddev=1.0, keyed_by="image")': KEYED,
    'round(decimals=0)': COARSE,
    f'top_k(k={WIDTH // 16})': COARSE,
    'normalize': COARSE,
    'binarize': COARSE,
    f'binarize(bits={WIDTH})': SECRET,
    'orthogonal': SECRET,
    'affine': SECRET,
    'diagonal': SECRET,
    'pad_shuffle': SECRET,
    'similarity_guard(threshold=0.95)': SIMILAR,
    'similarity_guard(threshold=0.9, capacity=1, then="refuse")': SIMILAR,
    'bucket_coverage(bits=8, alpha=10.0)': COVERAGE,
    'bucket_coverage(bits=8, alpha=10.0) | affine': MAPPED,
    PRADA: WATCHED,
    'prediction_poisoning(radius=1.0)': POISONED,
    'rate_limit(queries=100, total=800)': LIMITED,
    'proof_of_work(bits=8)': PAID,
    'dynamarks': MARKED,
}
STRENGTHS = {
    'gaussian_noise(stddev=0.5)': NOISE,
    'gaussian_noise(stddev=2.0)': NOISE,
    'gaussian_noise(stddev=0.5, keyed_by="image")': KEYED,
    'gaussian_noise(stddev=2.0, keyed_by="image")': KEYED,
    f'top_k(k={WIDTH // 4})': COARSE,
    'similarity_guard(threshold=0.9, capacity=1)': SIMILAR,
    'bucket_coverage(bits=8)': COVERAGE,
    'prada(then="gaussian_noise(stddev=2.0)")': WATCHED,
    'prediction_poisoning(radius=0.3)': POISONED,
    'prediction_poisoning(radius=1.0, epochs=0)': POISONED,  # by a model that was not trained
}
# Attackers that the first 500 runs showed to be missing, beside those of MAIN:
MISSING = (
    (SECRET, MSE | ADAPTER),
    (MAPPED, MSE | ADAPTER),
    (POISONED, MSE | ADAPTER),
    (SIMILAR, MSE | DROP),
)
ADDED = {
    defense: (*attacks, attack)
    for defense, attacks in MAIN.items()
    for among, attack in MISSING
    if attacks == among
}
MARKS = {'region_mark': INHERITED, 'espew': INHERITED}
# B4B's own table: users of other images, and two to six accounts.
ACCOUNTS = (
    MSE,
    INFONCE,
    MSE | ADAPTER,
    STAY,
    *(sybils(accounts, 3_000) for accounts in (2, 3, 4, 5, 6)),
    *(apart(accounts) for accounts in (2, 3, 4, 5, 6)),
)
ELSEWHERE = {
    'bucket_coverage(bits=8)': ACCOUNTS,
    'bucket_coverage(bits=8, alpha=10.0)': ACCOUNTS,
    'bucket_coverage(bits=8, alpha=10.0) | affine': ACCOUNTS,
}


def get_config(which: str = 'main'):
    c = cifar10_cpu.setting()
    c.attack.budget, c.attack.epochs = BUDGET, EPOCHS
    c.legitimate.images = 1_000
    c.legitimate.test_images = 2_000
    c.legitimate.repeats = (1, 4)
    c.evaluation.tasks = ('cifar10(train="train[40000:45000]")',)
    defenses = {
        'main': MAIN,
        'added': ADDED,
        'strengths': STRENGTHS,
        'marks': MARKS,
        'elsewhere': ELSEWHERE,
    }[which]
    if which == 'elsewhere':
        c.attack.budget, c.attack.epochs = 3_000, 4
        fashion = 'fashion_mnist(train="train[:5000]")'
        c.evaluation.tasks = (fashion, *c.evaluation.tasks)  # the first is that of the users
    c.baselines.scratch_epochs = c.attack.epochs  # the shadow encoder of those who recover answers
    conditions = [
        condition(c.attack.epochs, defense, attack)
        for name, attacks in defenses.items()
        for defense in ('', name)
        for attack in attacks
    ]
    distinct = {repr(overrides): overrides for overrides in conditions}.values()
    c.runs = tuple({'seed': seed, **overrides} for overrides in distinct for seed in SEEDS)
    c.report.comparisons = family(c.attack.epochs, defenses)
    return c


def condition(epochs: int, defense: str, attack: dict) -> dict:
    """The overrides of one attacker: as many steps, however many views of an image it asks."""
    views = {'views(m=2)': 2, 'once': 1}.get(attack.get('attack.plan', 'once'), 4)
    return {'defense': defense, **attack, 'attack.epochs': epochs * views}


def family(epochs: int, defenses: dict[str, tuple]) -> tuple[dict, ...]:
    """The comparisons that are tested together: attackers and a user, with and without."""
    comparisons = []
    for defense, attacks in defenses.items():
        behind, without = (
            tuple(condition(epochs, name, attack) for attack in attacks) for name in (defense, '')
        )
        user = {'role': 'legitimate', 'user': 'broad'}
        comparisons += [
            {'name': f'best attacker behind {defense}', 'new': behind, 'old': without},
            {
                'name': f'broad user behind {defense}',
                'new': user | behind[0],
                'old': user | without[0],
                'metric': 'user_accuracy',
            },
        ]
    return tuple({**comparison, 'margin': MARGIN} for comparison in comparisons)
