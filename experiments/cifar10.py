"""The paper's own CIFAR-10 setting (its Table 2), for an accelerator.

    python launch.py --config=experiments/cifar10.py --config.data.dir=DIR

A SimCLR ResNet-34 (200 epochs, batch 256, Adam 3e-4), direct extraction with 9,000 queries and 100
epochs on the stored answers, each loss with its own rate and batch, three seeds. The queries are
the first 9,000 images of CIFAR-10's test split, as in the paper, so that its CIFAR-10 accuracy is
measured on the last 1,000; STL-10 and SVHN are tested whole. DIR holds TFDS copies of cifar10,
stl10 and svhn_cropped. The paper reports (CIFAR-10 / STL-10 / SVHN) victim 79.0 / 67.9 / 65.1, mse
75.5 / 64.8 / 58.8, infonce 75.5 / 64.6 / 69.6, softnn 76.9 / 67.1 / 67.3, wasserstein 63.9 / 50.8
/ 49.5, and with two augmented views of 4,500 images supcon 78.5 / 63.1 / 67.1, barlow 26.9 / 26.6 /
26.2 (its code's barlow never compares surrogate and victim; docs/deviations.md).
"""

from ssl_extract import config
from ssl_extract.attacks import direct, preset
from ssl_extract.victims.pretraining import simclr


def get_config():
    c = config.base()
    c.data.name = 'cifar10'
    c.data.size = 32

    c.victim.encoder = 'resnet34(stem="cifar")'
    c.victim.update(simclr.PAPER)

    c.attack.split = 'test[:9000]'
    c.attack.update(preset('direct'))

    c.baselines.scratch_epochs = 200
    c.baselines.scratch_batch_size = 256

    c.evaluation.tasks = ('cifar10(test="test[9000:]")', 'stl10', 'svhn_cropped')
    c.runs = tuple(
        {f'attack.{field}': value for field, value in settings.items()} | {'seed': seed}
        for settings in direct.PAPER_BY_LOSS.values()
        for seed in (1, 2, 3)
    )
    return c
