"""The paper's ImageNet setting (its Table 3): SimSiam's ResNet-50, for an accelerator.

    python launch.py --config=experiments/paper_imagenet.py:FILE --workdir=DIR

FILE is what SimSiam's authors publish, their pretrained ResNet-50 (100 epochs, batch 512 or 256);
docs/how_to/attack_torch_weights.md says how such a file is read. Without FILE the victim is
pretrained here by SimSiam. Direct extraction with InfoNCE at temperature 0.1 and MSE, by LARS at
0.1 * 512 / 256, 100 epochs, batch 512. Asked are CIFAR-10 or ImageNet at 224 pixels, by TFDS: the
250,000 training images alone take 38 GB of memory. The paper reports (CIFAR-10 / CIFAR-100 / STL-10
/ SVHN / Fashion-MNIST) victim 90.3 / 71.5 / 94.9 / 79.4 / 91.9; mse with 200,000 queries 56.1 /
22.6 / 47.8 / 55.4 / 87.6; infonce with 50,000 queries 65.2 / 35.1 / 64.9 / 62.1 / 88.5, and with
250,000 queries 80.0 / 57.0 / 85.8 / 71.5 / 90.2.
"""

from ssl_extract import config
from ssl_extract.victims.pretraining import simsiam

ENCODER = 'normalize | resnet50'
MSE, INFONCE = {'attack.loss': 'mse'}, {'attack.loss': 'infonce(temperature=0.1)'}
CIFAR10 = {'attack.data': 'cifar10', 'attack.split': 'train', 'attack.budget': 50_000}
VALIDATION = {'attack.split': 'validation', 'attack.budget': 50_000}


def training(budget: int) -> dict:
    """The first images of ImageNet's training set, which TFDS has shuffled."""
    return {'attack.split': f'train[:{budget}]', 'attack.budget': budget}


def get_config(file: str = ''):
    c = config.base()
    c.data.name = 'imagenet2012'
    c.data.size = 224

    c.victim.encoder = ENCODER
    c.victim.update(simsiam.PAPER)
    c.victim.update(learning_rate=0.1, epochs=100, optimizer='sgd(momentum=0.9, weight_decay=1e-4)')
    if file:
        c.victim.source = f'torch(path={file!r}, encoder={ENCODER!r}, size=224)'
        c.victim.split = 'train[:1000]'  # is not trained on

    c.attack.batch_size = 512
    c.attack.epochs = 100
    c.attack.optimizer = 'lars'
    c.attack.learning_rate = 0.2

    c.baselines.scratch_epochs = 0  # costs as much as the attack, for each set of queries
    c.evaluation.tasks = ('cifar10', 'cifar100', 'stl10', 'svhn_cropped', 'fashion_mnist')
    rows = [loss | pool for pool in (CIFAR10, VALIDATION) for loss in (MSE, INFONCE)]
    rows += [loss | training(n) for n in (50_000, 100_000, 200_000) for loss in (MSE, INFONCE)]
    rows += [INFONCE | training(250_000)]
    c.runs = tuple(row | {'seed': seed} for row in rows for seed in (1, 2, 3))
    return c
