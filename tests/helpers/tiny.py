"""An experiment of every kind of run, a few seconds long; the tests' own."""

from ssl_extract import config


def get_config():
    c = config.base()
    c.data.name = 'digits'
    c.data.size = 8
    c.victim.split = 'train[:64]'
    c.victim.encoder = 'resnet18(stem="patch", width=4, stages=(1,))'
    c.victim.method = 'simclr(hidden=8, dim=8)'
    c.victim.augmentation = 'simclr(flip=0.0, min_scale=0.3)'
    c.victim.epochs = 3
    c.victim.batch_size = 16
    c.attack.split = 'train[64:200]'
    c.attack.budget = 41
    c.attack.epochs = 4
    c.attack.batch_size = 16
    c.baselines.scratch_epochs = 2
    c.baselines.scratch_batch_size = 16
    c.evaluation.tasks = ('digits(train="train[:200]", test="test[:100]")',)
    c.evaluation.probe = 'sgd(learning_rate=1e-2, epochs=30)'
    c.evaluation.neighbors = 5
    c.evaluation.shots = 3
    c.legitimate.users = ('broad',)
    c.legitimate.recover = ('',)
    c.legitimate.test_images = 40
    c.training.log_every = 2
    c.runs = (
        {'attack.loss': 'mse'},
        {'attack.loss': 'infonce', 'defense': 'gaussian_noise(stddev=0.1) | round(decimals=2)'},
        {'attack.plan': 'online', 'attack.query_augmentation': 'simclr', 'attack.budget': 70},
    )
    return c
