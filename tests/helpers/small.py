"""One run of a second: a victim, an attack and their evaluation; the tests' own."""

import tiny


def get_config():
    c = tiny.get_config()
    c.runs = ()
    c.victim.epochs = 1
    c.attack.epochs = 1
    c.attack.budget = 32
    c.baselines.scratch_epochs = 0
    c.baselines.random = False
    c.evaluation.probe = 'sgd(learning_rate=1e-2, epochs=5)'
    c.evaluation.shots = 0
    c.legitimate.users = ()
    return c
