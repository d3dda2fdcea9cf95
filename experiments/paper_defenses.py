"""The paper's defenses in its own CIFAR-10 setting (its Tables 10-12), for an accelerator.

    python launch.py --config=experiments/paper_defenses.py --config.data.dir=DIR

Victim, queries and evaluation are those of experiments/cifar10.py. Noise has a stddev of 1 to 4 and
a mean of 10 or 0, so that each shift has its control. Similar answers of the projection head, by
cosine or L2, are replaced by N(1000, stddev^2). All defenses, and none, meet the same attackers:
the paper's MSE attacker and InfoNCE attacker with two augmented views, and those that know, who
subtract the shift, average the noise, shrink, or drop the outliers. The user is the paper's
two-layer network on 9,000 answers, and does the same. The thresholds are in the scale of
the paper's own victim (Tables 13-15); `python -m ssl_extract.studies.detection` finds those of
another. The paper's users lose 1-5 points and its attackers about 10 where the mean is 10; with
mean 0 both lose alike.
"""

import cifar10

from ssl_extract.attacks import direct

MSE = direct.PAPER_BY_LOSS['mse']
PAIRS = direct.PAPER_BY_LOSS['infonce'] | {
    'plan': 'views(m=2)',
    'query_augmentation': 'simclr',
    'student_augmentation': 'none',
}
NOISE = [f'gaussian_noise(mean={m}, stddev={s}.0)' for m in (10.0, 0.0) for s in (1, 2, 3, 4)]
SIMILAR = ('threshold=0.5, metric="cosine"', 'threshold=13.0, metric="l2"')
GUARDS = [
    f"similarity_guard({how}, of='projection', capacity=256, "
    f"then='replace(mean=1000.0, stddev={stddev}.0)')"
    for how in SIMILAR
    for stddev in (20, 40, 60)
]


def get_config():
    c = cifar10.get_config()
    c.legitimate.users = ('broad',)
    c.legitimate.images = 9_000
    c.legitimate.model = 'mlp'
    c.legitimate.repeats = (1, 4)

    attackers = (
        MSE,
        MSE | {'plan': 'repeat(m=4)'},
        MSE | {'recover': 'subtract_shift'},
        MSE | {'recover': 'shrink'},
        PAIRS,
        PAIRS | {'recover': 'drop_outliers'},
    )
    c.runs = tuple(
        {f'attack.{field}': value for field, value in attack.items()}
        | {'defense': defense, 'seed': seed}
        for defense in ('', *NOISE, *GUARDS)
        for attack in attackers
        for seed in (1, 2, 3)
    )
    return c
