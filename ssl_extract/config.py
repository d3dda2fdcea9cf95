"""The fields of an experiment, their defaults, and the list of runs.

An experiment file's `get_config()` starts from `base()` and sets what differs. The returned
ConfigDict is locked: a misspelt field is refused, there and on the command line.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import ml_collections

from ssl_extract.attacks import own_settings
from ssl_extract.errors import UserError


def base() -> ml_collections.ConfigDict:
    """All fields. An empty string or 0 means what the comment says."""
    c = ml_collections.ConfigDict()
    c.seed = 1  # the attacker's: which images it asks, its account, initialization, order
    c.modules = ()  # the user's own modules to import: how a third-party loss arrives
    c.defense = ''  # e.g. 'gaussian_noise(stddev=1.0) | round(decimals=2)'; '' answers plainly

    c.data = ml_collections.ConfigDict()
    c.data.name = 'digits'  # or any TFDS image-classification set
    c.data.dir = ''  # where TFDS keeps its sets; '' is its default
    c.data.size = 0  # images are resized to size x size; 0 keeps them

    c.victim = ml_collections.ConfigDict()
    c.victim.seed = 0  # of its initialization and order
    c.victim.source = 'pretrain'  # or 'checkpoint(path="...")', 'function("module:name", dim=512)'
    c.victim.split = 'train'  # what it is pretrained on
    c.victim.method = 'simclr'  # of its pretraining, or 'simsiam'
    c.victim.encoder = 'resnet18(stem="cifar")'  # its network
    c.victim.augmentation = 'simclr'  # what a view is in pretraining
    c.victim.epochs = 200
    c.victim.batch_size = 256
    c.victim.optimizer = 'adam(weight_decay=1e-4)'
    c.victim.schedule = 'cosine'  # of the learning rate
    c.victim.learning_rate = 3e-4

    c.attack = ml_collections.ConfigDict()
    c.attack.name = 'direct'  # with its own arguments, as in 'rda(views=5)'
    c.attack.data = ''  # the attacker's images; '' is data.name
    c.attack.split = 'train'  # the pool of what it may ask
    c.attack.encoder = ''  # the surrogate's; '' is the victim's
    # Of these four, '' is the attack's own, as its authors do it; 'none' is no augmentation.
    c.attack.loss = ''
    c.attack.plan = ''  # 'once', 'views(m=10)' or 'online' (fresh views until the budget is spent)
    c.attack.query_augmentation = ''  # plans 'views' and 'online': what is asked
    c.attack.student_augmentation = ''  # what the surrogate sees
    c.attack.strategy = 'random'  # which images of its own the attacker asks
    c.attack.recover = ''  # what it does to the answers first, e.g. 'drop_outliers | denoise'
    c.attack.accounts = 1  # sybils: the images are shared out among so many accounts
    c.attack.overlap = 256  # of several accounts: images that all of them ask, to fit maps on
    c.attack.budget = 9_000  # queries: one view sent is one
    c.attack.epochs = 100  # over the stored answers; plan 'online' ends with the budget instead
    c.attack.batch_size = 64
    c.attack.optimizer = 'adam(weight_decay=1e-4)'
    c.attack.schedule = 'cosine'
    c.attack.learning_rate = 1e-3

    c.legitimate = ml_collections.ConfigDict()  # who else asks, where there is a defense
    c.legitimate.users = ('broad', 'narrow(classes=3)', 'augmenting(views=2)')
    c.legitimate.images = 1_000  # labeled images of its own, of the first task's training set
    c.legitimate.test_images = 0  # so many of its test images, asked after its own; 0 is all
    c.legitimate.model = 'probe'  # on the answers: evaluation.probe, or the paper's 'mlp'

    c.cost = ml_collections.ConfigDict()
    c.cost.dollars_per_1000_queries = 1.0  # what the victim's owner charges
    c.cost.dollars_per_hour = 1.0  # what the machine costs that trains victim and surrogate

    c.baselines = ml_collections.ConfigDict()
    c.baselines.random = True  # the surrogate's network, untrained
    c.baselines.scratch_epochs = (
        100  # pretrained on the attacker's images, no victim; 0 leaves it out
    )
    c.baselines.scratch_batch_size = 64

    c.evaluation = ml_collections.ConfigDict()
    c.evaluation.tasks = ('digits(train="train", test="test")',)  # the first is also for fidelity
    c.evaluation.probe = 'lbfgs'  # the linear probe; 'sgd' is the paper's own recipe
    c.evaluation.neighbors = 20  # of the kNN classifier
    c.evaluation.shots = 5  # labeled inputs per class of the few-shot probe; 0 leaves it out
    # Whether the victim itself is measured, and fidelity to it: 'if_free' where that sends no query
    # (a JAX victim), 'ask' always (a victim that is no JAX function answers all inputs of the tasks
    # once, and its rows carry the bill), 'no' never.
    c.evaluation.victim = 'if_free'

    c.training = ml_collections.ConfigDict()
    c.training.checkpoint_every = 500  # steps
    c.training.log_every = 25  # steps

    c.runs = ()  # overrides, one dict of dotted fields a run; () is the one run above
    return c.lock()


def grid(**fields: tuple) -> tuple[dict[str, Any], ...]:
    """Every combination of the fields' values, as overrides; `__` stands for the dot.

    >>> grid(attack__loss=('mse', 'infonce'), seed=(1,))
    ({'attack.loss': 'mse', 'seed': 1}, {'attack.loss': 'infonce', 'seed': 1})
    """
    names = [name.replace('__', '.') for name in fields]
    return tuple(
        dict(zip(names, values, strict=True)) for values in itertools.product(*fields.values())
    )


def expand(
    config: ml_collections.ConfigDict, fixed: tuple[str, ...] = ()
) -> Iterator[ml_collections.ConfigDict]:
    """The configs of all runs, without repetitions, with the attacks' own choices filled in.

    Args:
        config: a base config with its list of `runs`.
        fixed: dotted fields given on the command line: they win over the runs' overrides.

    Raises:
        UserError: a run overrides a field that does not exist or with a value of another type, or
            there is no such attack.
    """
    seen = set()
    for number, overrides in enumerate(config.runs or ({},)):
        run = config.copy_and_resolve_references()
        with run.unlocked():
            del run.runs
        for field, value in overrides.items():
            if field in fixed:
                continue
            if field.split('.')[0] in ('evaluation', 'modules', 'runs'):
                raise UserError(f'runs[{number}] sets {field}: all runs share it, set it once')
            try:
                known = run
                for part in field.split('.'):
                    known = known[part]
                run.update_from_flattened_dict({field: value})
            except (KeyError, TypeError, AttributeError) as error:
                message = str(error.args[0]).splitlines()[0]
                raise UserError(f'runs[{number}] sets {field}={value!r}: {message}') from None
        for field, own in own_settings(run.attack.name).items():
            run.attack[field] = run.attack[field] or own
        if (text := run.to_json(sort_keys=True)) not in seen:
            seen.add(text)
            yield run
