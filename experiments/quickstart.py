"""Steal a small SimCLR encoder of handwritten digits, with and without a defense.

    python launch.py

needs no data but scikit-learn's. It pretrains a victim on 700 unlabeled digits, asks it about 128
and about 512 images of the attacker's own, trains surrogates on the stored answers, and again
behind Gaussian noise. Expect the surrogate to come close to the victim with 512 queries, and noise
to cost it several points. The report is runs/quickstart/report.html.
"""

from ssl_extract import config


def get_config():
    c = config.base()
    c.data.name = 'digits'
    c.data.size = 16

    c.victim.split = 'train[:700]'
    c.victim.encoder = 'resnet18(stem="cifar", width=16, stages=(1, 1, 1))'
    # No flips, little hue: a mirrored or rotated digit is another digit.
    c.victim.augmentation = 'simclr(min_scale=0.3, flip=0.0, strength=0.5)'
    c.victim.epochs = 30
    c.victim.batch_size = 64
    c.victim.learning_rate = 1e-3

    c.attack.split = 'train[700:]'
    c.attack.loss = 'mse'
    c.attack.epochs = 30
    c.attack.batch_size = 64

    c.baselines.scratch_epochs = 30

    # A hundred labels: with all 1,297 even an untrained network separates the digits.
    c.evaluation.tasks = ('digits(train="train[:100]", test="test")',)
    c.evaluation.neighbors = 5
    c.evaluation.shots = 3
    c.training.checkpoint_every = 100
    c.runs = (
        {'attack.budget': 128, 'defense': ''},
        {'attack.budget': 512, 'defense': ''},
        {'attack.budget': 512, 'defense': 'gaussian_noise(stddev=1.0)'},
    )
    return c
