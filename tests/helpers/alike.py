"""Two runs of a second that differ in seeds alone, whose trainings may be one program."""

import small


def get_config():
    c = small.get_config()
    c.victim.epochs = c.attack.epochs = 2
    c.attack.loss = 'mse'
    c.training.replicas = 2
    c.runs = tuple({'seed': seed, 'victim.seed': seed} for seed in (1, 2))
    return c
