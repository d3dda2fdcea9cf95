"""Steal a small SimCLR encoder of handwritten digits, with and without a defense.

    python launch.py

needs no data but scikit-learn's. It pretrains a victim on 700 unlabeled digits, asks it about 128
images of the attacker's own, and trains surrogates on the stored answers; then the same behind
Gaussian noise of 0.8 standard deviations of the answers, and behind a secret rotation. Each time
there is an attacker that knows of the defense too, with an adapter that learns the rotation. Three
seeds of the attacker.

Expect, by few-shot accuracy: a victim of 82 %, an untrained network of 65 %, one pretrained on the
attacker's 128 images by the victim's recipe of 74 %, and a stolen one of 83 %, as good as the
victim. The noise costs a user some 10 points and the attacker nothing, so it is no defense. The
rotation costs a user nothing and the attacker that does not expect it all of its gain: a cheap
defense against those. The attacker with the adapter loses some 3 points, with an interval from 6
lost to none: three seeds do not show that it loses anything. The report is
runs/quickstart/report.html.
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
    c.attack.budget = 128
    c.attack.loss = 'mse'
    # The asked images, seen anew: that costs no query.
    c.attack.student_augmentation = 'random_resized_crop(scale=(0.5, 1.0))'
    c.attack.epochs = 30
    c.attack.batch_size = 16
    c.attack.learning_rate = 2e-3

    c.baselines.scratch_epochs = 30

    c.legitimate.users = ('broad', 'augmenting(views=2)')
    c.legitimate.recover = ('', 'shrink')  # no defense here replaces answers, to drop
    # A hundred labels: with all 1,297 even an untrained network separates the digits.
    c.evaluation.tasks = ('digits(train="train[:100]", test="test")',)
    c.evaluation.neighbors = 5
    c.evaluation.shots = 3
    c.training.checkpoint_every = 100
    c.runs = config.grid(
        defense=('', 'gaussian_noise(stddev=0.2)', 'orthogonal'),
        attack__name=('direct', 'direct(adapter=True)'),
        seed=(1, 2, 3),
    )
    return c
