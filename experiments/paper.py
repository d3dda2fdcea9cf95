"""Any attack with its authors' own settings, on the paper's CIFAR-10 victim, for an accelerator.

    python launch.py --config=experiments/paper.py:rda --config.data.dir=DIR

What follows the colon is a registered attack with settings of its authors. Budget, plan, views,
loss, optimizer, rate, batch and epochs are its authors' for CIFAR-10; its file in
ssl_extract/attacks says where they stand. Victim and evaluation are those of
experiments/cifar10.py; asked is the training split of CIFAR-10, since most authors ask more than
its test split holds. An attack that asks anew in every epoch is billed for that: cont_steal's
50,000 images cost 5,000,000 queries.
"""

from ssl_extract import attacks, config
from ssl_extract.errors import UserError
from ssl_extract.victims.pretraining import simclr


def get_config(attack: str = 'direct'):
    published = sorted(name for name in attacks.ATTACKS if 'budget' in attacks.preset(name))
    if attack not in published:
        raise UserError(f'paper.py:{attack}: write one of {", ".join(published)}')
    c = config.base()
    c.data.name = 'cifar10'
    c.data.size = 32

    c.victim.encoder = 'resnet34(stem="cifar")'
    c.victim.update(simclr.PAPER)

    c.attack.name = attack
    c.attack.update(attacks.preset(attack))

    c.baselines.scratch_epochs = 200
    c.baselines.scratch_batch_size = 256

    c.evaluation.tasks = ('cifar10', 'stl10', 'svhn_cropped')
    c.runs = tuple({'seed': seed} for seed in (1, 2, 3))
    return c
