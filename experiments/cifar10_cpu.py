"""Tables 2, 7 and 8 of the paper at laptop size: four losses, three budgets, three seeds.

    python launch.py --config=experiments/cifar10_cpu.py --config.data.dir=DIR

DIR holds TFDS copies of cifar10 and fashion_mnist. One SimCLR victim (a small ResNet, 20,000
images), direct extraction with mse, infonce, softnn and wasserstein at 500, 1,000 and 4,000
queries, three seeds, linear probes on CIFAR-10 and Fashion-MNIST. Took 35 minutes on two
cores that were busy with other work too; docs/studies/results.md shows what came out.
"""

from ssl_extract import config

BUDGETS = {500: 40, 1_000: 25, 4_000: 12}  # queries, and epochs over their answers
LOSSES = ('mse', 'infonce(temperature=0.07)', 'softnn(temperature=100.0)', 'wasserstein')


def get_config():
    c = config.base()
    c.data.name = 'cifar10'
    c.data.size = 32

    c.victim.split = 'train[:20000]'
    c.victim.encoder = 'resnet18(stem="patch", width=24, stages=(1, 1, 1))'
    c.victim.method = 'simclr(temperature=0.5, hidden=128, dim=64)'
    c.victim.augmentation = 'simclr(strength=0.5, min_scale=0.2)'
    c.victim.epochs = 15
    c.victim.batch_size = 256
    c.victim.learning_rate = 1e-3

    c.attack.split = 'train[20000:]'
    c.attack.batch_size = 64
    c.attack.learning_rate = 1e-3
    c.baselines.scratch_batch_size = 64

    c.evaluation.tasks = (
        'cifar10(train="train[40000:]")',
        'fashion_mnist(train="train[:10000]")',
    )
    c.evaluation.probe = 'lbfgs(l2_grid=(1e-4, 1e-3, 1e-2, 1e-1, 1.0))'
    c.runs = tuple(
        {
            'seed': seed,
            'attack.budget': budget,
            'attack.epochs': epochs,
            'baselines.scratch_epochs': epochs,
            'attack.loss': loss,
        }
        for seed in (1, 2, 3)
        for budget, epochs in BUDGETS.items()
        for loss in LOSSES
    )
    return c
