"""The victims of the CPU studies: SimCLR or SimSiam on all 50,000 images of CIFAR-10.

    python launch.py --config=experiments/cifar10_victim.py --config.data.dir=DIR
    python launch.py --config=experiments/cifar10_victim.py:simsiam --config.data.dir=DIR

DIR holds a TFDS copy of cifar10. A ResNet of 1.2 million parameters with answers of 256 numbers. It
is measured by a linear probe on 10,000 labeled images, and stolen once. The temperature comes from
runs of four epochs: 0.2 gave 52.6 % in the probe, and 0.5 50.8 %. `ssl-extract store` made the
stored victim of it, experiments/victims/cifar10_simclr.safetensors: 66.5 % (65.5 to 67.4), where
the untrained network has 39.0 %. Its training took 47 minutes on two cores that were busy with
other work too.
"""

from ssl_extract import config

ENCODER = 'resnet18(stem="patch", width=32, stages=(1, 1, 1, 1))'
AUGMENTATION = (
    'random_resized_crop(scale=(0.2, 1.0)) | flip(p=0.5) | '
    'color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8) | grayscale(p=0.2)'
)
METHODS = {
    'simclr': 'simclr(temperature=0.2, hidden=512, dim=128)',
    'simsiam': 'simsiam(hidden=512, dim=512, bottleneck=128)',
}


def recipe(method: str) -> dict:
    """The fields of a victim: all of its training but the number of epochs and the batch."""
    return {
        'encoder': ENCODER,
        'method': METHODS[method],
        'augmentation': AUGMENTATION,
        'learning_rate': 2e-3,
        'optimizer': 'adam(weight_decay=1e-5)',
        'schedule': 'cosine(warmup=0.05)',
    }


def get_config(method: str = 'simclr'):
    c = config.base()
    c.data.name = 'cifar10'
    c.data.size = 32

    c.victim.update(recipe(method))
    c.victim.epochs = 40
    c.victim.batch_size = 256

    c.attack.split = 'train[:40000]'
    c.attack.budget = 4_000
    c.attack.epochs = 12
    c.baselines.scratch_epochs = 0

    c.evaluation.tasks = ('cifar10(train="train[40000:]")',)
    c.evaluation.probe = 'lbfgs(l2_grid=(1e-4, 1e-3, 1e-2, 1e-1, 1.0))'
    c.runs = ({'attack.loss': 'mse'},)
    return c
