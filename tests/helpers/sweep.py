"""A sweep of runs of a second, of which the last one fails: its loss is not finite."""

import small

from ssl_extract import config


def get_config(count='3'):
    c = small.get_config()
    good = config.grid(seed=tuple(range(1, int(count))))
    c.runs = (*good, {'attack.optimizer': 'sgd', 'attack.learning_rate': 1e15, 'attack.epochs': 3})
    return c
