"""The study of backdoors with its authors' victim, for an accelerator.

    python launch.py --config=experiments/backdoors.py --config.data.dir=DIR
    python launch.py --config=experiments/backdoors.py:survival --config.data.dir=DIR
    python launch.py --config=experiments/backdoors.py:training --config.data.dir=DIR

DIR holds a TFDS copy of cifar10. Runs and comparisons are those of experiments/backdoors_cpu.py;
the victim is that of CTRL's authors, a ResNet-18 after 800 epochs of SGD at a rate of 0.06 with a
weight decay of 5e-4, here on 40,000 images. They report that 99 % of the images with the trigger
are taken for the target class, by SimCLR's victim with 1 % of poison.
"""

import backdoors_cpu

AUTHORS = backdoors_cpu.Poison(
    {
        'patch': ('patch(size=8)', 'patch(size=8)'),
        'ctrl': ('ctrl(magnitude=50.0)', 'ctrl(magnitude=100.0)'),
    },
    rate=0.01,
)


PRETRAINING = {
    **backdoors_cpu.VICTIM,
    'encoder': 'resnet18(stem="cifar")',
    'split': 'train[:40000]',
    'epochs': 800,
    'batch_size': 512,
    'optimizer': 'sgd(momentum=0.9, weight_decay=5e-4)',
    'learning_rate': 0.06,
    'schedule': 'cosine(warmup=0.01)',
}


def get_config(part: str = ''):
    c = backdoors_cpu.get_config(part, AUTHORS, PRETRAINING)
    c.data.size = 32
    return c
