"""Every defense, attacker and legitimate user side by side, three seeds, one CIFAR-10 victim.

    python launch.py --config=experiments/defenses_cpu.py --config.data.dir=DIR

DIR holds a TFDS copy of cifar10; the victim is the one of attacks_cpu.py. Behind each defense, at
one or two strengths, and without any, stand the same attackers, all with 1,000 queries and about as
many steps: direct extraction with two losses, and all that an attacker may try who knows of a
defense. So a defended number and the undefended reference are the best of the same list. Beside
them stand three kinds of legitimate users, who adapt too: each drops outliers, shrinks or averages
four answers to a query, whichever is best on validation images of its own.
docs/studies/defenses.md shows what came out. The whole is long on a CPU; `--run_index` splits it.

`defenses_cpu.py:elsewhere` is bucket coverage alone with the users that it is made for: they ask
about images of another kind, Fashion-MNIST (in DIR too), and as often as the attacker, 3,000 times.
"""

import attacks_cpu

BUDGET, EPOCHS = 1_000, 10
WIDTH = 96  # of the victim's answers
MSE = {'attack.loss': 'mse'}
INFONCE = {'attack.loss': 'infonce(temperature=0.07)'}
PAIRS = INFONCE | {'attack.plan': 'views(m=2)', 'attack.query_augmentation': 'simclr'}
POSTERIORS = {'attack.name': 'posteriors'}
HARDEN = POSTERIORS | {'attack.recover': 'harden'}
ADAPTER = {'attack.name': 'direct(adapter=True)'}  # learns the secret map's inverse
STAY = MSE | {'attack.strategy': 'stay_close(rounds=4)'}  # asks about like images only


def sybils(accounts: int) -> dict:
    """Several accounts with maps between their answers, fitted on five inputs per coordinate."""
    return MSE | {'attack.accounts': accounts, 'attack.overlap': 5 * WIDTH}


def apart(accounts: int) -> dict:
    """Several accounts without one image in common, each with an adapter of its own."""
    return MSE | ADAPTER | {'attack.accounts': accounts, 'attack.overlap': 0}


# Tried behind every defense, and without one.
ATTACKERS = (
    MSE,
    INFONCE,
    {'attack.loss': 'cosine'},
    PAIRS,
    MSE | ADAPTER,
    INFONCE | ADAPTER,
    MSE | {'attack.plan': 'repeat(m=4)'},  # asks again and averages
    MSE | {'attack.plan': 'near_duplicates(m=4)'},  # the same where noise is keyed by the image
    STAY,
    sybils(2),
    apart(3),
    MSE | {'attack.recover': 'subtract_shift'},
    MSE | {'attack.recover': 'denoise'},  # recognizes the defense, and undoes it
    MSE | {'attack.recover': 'shrink'},
    MSE | {'attack.recover': 'project_out'},  # of a perturbation near one direction
    PAIRS | {'attack.recover': 'drop_outliers'},
)
# Between the mean and the lowest W of users' accounts in docs/studies/detection.md. To be set to
# the W below which one user's account in ten falls, as `ssl_extract.studies.detection` says.
PRADA = 'prada(delta=0.915, then="gaussian_noise(stddev=2.0)")'
DEFENSES = (
    '',
    'gaussian_noise(stddev=0.5)',
    'gaussian_noise(stddev=2.0)',
    'gaussian_noise(mean=10.0, stddev=1.0)',
    'gaussian_noise(stddev=1.0)',  # the control of the shift: the same noise alone
    'gaussian_noise(stddev=0.5, keyed_by="image")',
    'gaussian_noise(stddev=2.0, keyed_by="image")',
    'round(decimals=0)',
    'top_k(k=24)',
    'top_k(k=6)',
    'normalize',
    'binarize',
    'binarize(bits=96)',
    'orthogonal',
    'affine',
    'diagonal',
    'pad_shuffle',
    'similarity_guard(threshold=0.95)',
    'similarity_guard(threshold=0.9, capacity=1)',
    'similarity_guard(threshold=0.9, capacity=1, then="refuse")',
    'bucket_coverage(bits=8)',
    'bucket_coverage(bits=8, alpha=10.0)',
    'bucket_coverage(bits=8, alpha=10.0) | affine',
    'prada(then="gaussian_noise(stddev=2.0)")',
    PRADA,
    'prediction_poisoning(radius=0.3)',
    'prediction_poisoning(radius=1.0)',
    'prediction_poisoning(radius=1.0, epochs=0)',  # by a model that the owner did not train
    'rate_limit(queries=100, total=400)',
    'proof_of_work(bits=8)',
)
MARKS = '', 'dynamarks'  # of a classifier's answers: label stealing is direct extraction there

# B4B's own table: users of other images, and two to six accounts.
ELSEWHERE = (
    '',
    'bucket_coverage(bits=8)',
    'bucket_coverage(bits=8, alpha=10.0)',
    'bucket_coverage(bits=8, alpha=10.0) | affine',
)
ELSEWHERE_ATTACKERS = (
    MSE,
    INFONCE,
    MSE | ADAPTER,
    STAY,
    *(attack(accounts) for attack in (sybils, apart) for accounts in (2, 3, 4, 5, 6)),
)


def get_config(where: str = ''):
    c = attacks_cpu.get_config()
    c.attack.budget = BUDGET
    c.attack.epochs = EPOCHS
    c.baselines.scratch_epochs = EPOCHS  # the shadow encoder of those who recover answers
    c.legitimate.images = 1_000
    c.legitimate.test_images = 2_000
    c.legitimate.repeats = (1, 4)
    c.evaluation.tasks = ('cifar10(train="train[40000:45000]")',)
    defenses, attackers, marks = DEFENSES, ATTACKERS, MARKS
    if where:
        defenses, attackers, marks = ELSEWHERE, ELSEWHERE_ATTACKERS, ()
        c.attack.budget, c.attack.epochs, c.baselines.scratch_epochs = 3_000, 4, 4
        fashion = 'fashion_mnist(train="train[:5000]")'
        c.evaluation.tasks = (fashion, *c.evaluation.tasks)  # the first is that of the users
    direct = [(defense, attack) for defense in defenses for attack in attackers]
    marked = [(defense, attack) for defense in marks for attack in (POSTERIORS, HARDEN)]
    c.runs = tuple(
        {'defense': defense, 'seed': seed, **attack, **as_many_steps(attack, c.attack.epochs)}
        for defense, attack in (*direct, *marked)
        if fits(defense, attack)
        for seed in (1, 2, 3)
    )
    return c


def fits(defense: str, attack: dict) -> bool:
    """Whether an attack can be made: a network that undoes a defense knows one width."""
    return not ('pad_shuffle' in defense and attack.get('attack.recover') == 'denoise')


def as_many_steps(attack: dict, epochs: int) -> dict:
    """The epochs of an attack that asks several views of each image and so has fewer images."""
    plan = attack.get('attack.plan', 'once')
    return {'attack.epochs': epochs * {'views(m=2)': 2, 'once': 1}.get(plan, 4)}
