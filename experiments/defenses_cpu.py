"""Every defense, attacker and legitimate user side by side, three seeds, one CIFAR-10 victim.

    python launch.py --config=experiments/defenses_cpu.py --config.data.dir=DIR

DIR holds a TFDS copy of cifar10; the victim is the one of attacks_cpu.py. Behind each defense, at
one or two strengths, stand direct extraction with two losses and attackers that know of the
defense, all with 1,000 queries and about as many steps, and three kinds of legitimate users.
docs/studies/defenses.md shows what came out.

`defenses_cpu.py:elsewhere` is bucket coverage alone with the users that it is made for: they ask
about images of another kind, Fashion-MNIST (in DIR too), and as often as the attacker, 3,000 times.
"""

import attacks_cpu

BUDGET, EPOCHS = 1_000, 10
MSE = {'attack.loss': 'mse'}
INFONCE = {'attack.loss': 'infonce(temperature=0.07)'}
PAIRS = INFONCE | {'attack.plan': 'views(m=2)', 'attack.query_augmentation': 'simclr'}
POSTERIORS = {'attack.name': 'posteriors'}

# What attackers do who know that there is a defense of this kind.
REPEAT = MSE | {'attack.plan': 'repeat(m=4)'}  # asks again and averages
STAY = MSE | {'attack.strategy': 'stay_close(rounds=4)'}  # asks about like images only
SYBILS = MSE | {'attack.accounts': 3, 'attack.overlap': 128}  # fits maps between their answers
ADAPTER = INFONCE | {'attack.name': 'direct(adapter=True)'}  # learns the secret map's inverse
COSINE = {'attack.loss': 'cosine'}
UNSHIFT = MSE | {'attack.recover': 'subtract_shift'}
RECOGNIZE = MSE | {'attack.recover': 'denoise'}
DROP = PAIRS | {'attack.recover': 'drop_outliers'}
HARDEN = POSTERIORS | {'attack.recover': 'harden'}


def denoise(known: str) -> dict:
    """An attacker that knows the defense and has trained a network to undo it."""
    return MSE | {'attack.recover': f"denoise(known='{known}')"}


# Defense: what else is tried against it than direct extraction as it is.
TRIED = {
    '': (REPEAT, STAY, SYBILS, ADAPTER, COSINE, PAIRS, UNSHIFT, RECOGNIZE),
    'gaussian_noise(stddev=0.5)': (REPEAT, denoise('gaussian_noise(stddev=0.5)'), RECOGNIZE),
    'gaussian_noise(stddev=2.0)': (REPEAT, denoise('gaussian_noise(stddev=2.0)')),
    'gaussian_noise(mean=10.0, stddev=1.0)': (UNSHIFT,),
    'gaussian_noise(stddev=0.5, keyed_by="image")': (
        REPEAT,
        denoise('gaussian_noise(stddev=0.5)'),
    ),
    'gaussian_noise(stddev=2.0, keyed_by="image")': (denoise('gaussian_noise(stddev=2.0)'),),
    'round(decimals=0)': (denoise('round(decimals=0)'),),
    'top_k(k=24)': (denoise('top_k(k=24)'),),
    'top_k(k=6)': (denoise('top_k(k=6)'),),
    'normalize': (COSINE, denoise('normalize')),
    'binarize': (denoise('binarize'),),
    'binarize(bits=96)': (ADAPTER,),
    'orthogonal': (ADAPTER,),
    'affine': (ADAPTER,),
    'pad_shuffle': (ADAPTER,),
    'similarity_guard(threshold=0.95)': (PAIRS, DROP),
    'similarity_guard(threshold=0.9, capacity=1)': (PAIRS, DROP),
    'similarity_guard(threshold=0.9, capacity=1, then="refuse")': (PAIRS, SYBILS),
    'bucket_coverage(bits=8)': (REPEAT, STAY, SYBILS),
    'bucket_coverage(bits=8, alpha=10.0)': (STAY, SYBILS),
    'bucket_coverage(bits=8, alpha=10.0) | affine': (STAY, SYBILS),
    'prada(then="gaussian_noise(stddev=2.0)")': (STAY,),
    'prediction_poisoning(radius=0.3)': (ADAPTER, denoise('gaussian_noise(stddev=0.2)')),
    'prediction_poisoning(radius=1.0)': (ADAPTER, denoise('gaussian_noise(stddev=0.7)')),
    'rate_limit(queries=100, total=400)': (SYBILS,),
    'proof_of_work(bits=8)': (STAY, SYBILS),
}
MARKED = 'dynamarks'  # of a classifier's answers: label stealing is direct extraction there


# B4B's own table: users of other images, and two to six accounts.
ELSEWHERE = {
    '': (),
    'bucket_coverage(bits=8)': (STAY,),
    'bucket_coverage(bits=8, alpha=10.0)': (STAY,),
    'bucket_coverage(bits=8, alpha=10.0) | affine': tuple(
        SYBILS | {'attack.accounts': accounts} for accounts in (2, 3, 4, 5, 6)
    ),
}


def get_config(where: str = ''):
    c = attacks_cpu.get_config()
    c.attack.budget = BUDGET
    c.attack.epochs = EPOCHS
    c.baselines.scratch_epochs = EPOCHS  # the shadow encoder of those who recover answers
    c.legitimate.images = 1_000
    c.legitimate.test_images = 2_000
    c.evaluation.tasks = ('cifar10(train="train[40000:45000]")',)
    tried, marks = TRIED, ('', MARKED)
    if where:
        tried, marks = ELSEWHERE, ()
        c.attack.budget, c.attack.epochs, c.baselines.scratch_epochs = 3_000, 4, 4
        fashion = 'fashion_mnist(train="train[:5000]")'
        c.evaluation.tasks = (fashion, *c.evaluation.tasks)  # the first is that of the users
    direct = [(d, a) for d, others in tried.items() for a in (MSE, INFONCE, *others)]
    marked = [(d, a) for d in marks for a in (POSTERIORS, HARDEN)]
    c.runs = tuple(
        {'defense': defense, 'seed': seed, **attack, **as_many_steps(attack, c.attack.epochs)}
        for defense, attack in (*direct, *marked)
        for seed in (1, 2, 3)
    )
    return c


def as_many_steps(attack: dict, epochs: int) -> dict:
    """The epochs of an attack that asks several views of each image and so has fewer images."""
    views = {'views(m=2)': 2, 'repeat(m=4)': 4}.get(attack.get('attack.plan'), 1)
    return {'attack.epochs': epochs * views}
