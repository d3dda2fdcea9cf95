"""The fields of an experiment, their defaults, and the list of runs.

An experiment file's `get_config()` starts from `base()` and sets what differs. The returned
ConfigDict is locked: a misspelt field is refused, there and on the command line.
"""

import difflib
import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import ml_collections

from ssl_extract import checks, ranges
from ssl_extract.attacks import own_settings
from ssl_extract.errors import UserError
from ssl_extract.oracle import MAX_BUDGET
from ssl_extract.ranges import Count, Positive, Range, Whole

_EPOCHS = 10**6
_OF_ALL_RUNS = ('runs', 'report.comparisons')  # tuples of dicts that no single run has
_PRICE = Annotated[float, Range(0, 10**9)]
# The accepted values of the fields of numbers; any other field has the type of its default.
RANGES = {
    'seed': Whole,
    'data.size': Annotated[int, Range(0, 2**10)],
    'victim.seed': Whole,
    'victim.epochs': Annotated[int, Range(1, _EPOCHS)],
    'victim.batch_size': Count,
    'victim.learning_rate': Positive,
    'attack.accounts': Annotated[int, Range(1, 10_000)],
    'attack.overlap': Whole,
    'attack.budget': Annotated[int, Range(1, MAX_BUDGET)],
    'attack.epochs': Annotated[int, Range(1, _EPOCHS)],
    'attack.batch_size': Count,
    'attack.learning_rate': Positive,
    'legitimate.images': Count,
    'legitimate.test_images': Whole,
    'legitimate.repeats': tuple[Annotated[int, Range(1, 64)], ...],  # times of each input
    'cost.dollars_per_1000_queries': _PRICE,
    'cost.dollars_per_hour': _PRICE,
    'baselines.scratch_epochs': Annotated[int, Range(0, _EPOCHS)],
    'baselines.scratch_batch_size': Count,
    'baselines.scratch_inputs': Whole,
    'evaluation.neighbors': Count,
    'evaluation.shots': Whole,
    'training.checkpoint_every': Count,
    'training.log_every': Count,
    'training.steps_per_dispatch': Annotated[int, Range(1, 1024)],
    'training.replicas': Count,
}


def base() -> ml_collections.ConfigDict:
    """Returns all fields; the comments give the meaning of an empty string and of 0."""
    c = ml_collections.ConfigDict()
    c.seed = 1  # of the attacker: the choice of queries, the account, initialization, order
    c.modules = ()  # modules to import that register parts of yours, such as a loss
    c.defense = ''  # e.g. 'gaussian_noise(stddev=1.0) | round(decimals=2)'; '' is none

    c.data = ml_collections.ConfigDict()
    c.data.name = 'digits'  # or any TFDS image-classification set
    c.data.dir = ''  # folder of the TFDS sets; '' is the default of TFDS
    c.data.size = 0  # images are resized to size x size; 0 keeps them

    c.victim = ml_collections.ConfigDict()
    c.victim.seed = 0  # of initialization and order
    # Or 'stored("NAME")', 'checkpoint(path="...")', 'function("module:name", dim=512)',
    # 'torch(path="...", encoder="normalize | resnet50", size=224)'.
    c.victim.source = 'pretrain'
    c.victim.split = 'train'  # of data.name, for pretraining
    c.victim.method = 'simclr'  # of pretraining, or 'simsiam', 'byol'
    c.victim.encoder = 'resnet18(stem="cifar")'  # the network
    c.victim.augmentation = 'simclr'  # of the views in pretraining
    c.victim.epochs = 200
    c.victim.batch_size = 256
    c.victim.optimizer = 'adam(weight_decay=1e-4)'
    c.victim.schedule = 'cosine'  # of the learning rate
    c.victim.learning_rate = 3e-4

    c.attack = ml_collections.ConfigDict()
    c.attack.name = 'direct'  # with arguments, as in 'rda(views=5)'
    c.attack.data = ''  # the attacker's data set; '' is data.name
    c.attack.split = 'train'  # the pool of possible queries
    c.attack.encoder = ''  # of the surrogate; '' is the victim's
    c.attack.init = ''  # its start: '' is untrained, or 'scratch', or 'checkpoint(path="...")'
    # Of these four, '' is the attack's default, as its authors do it; 'none' is no augmentation.
    c.attack.loss = ''
    c.attack.plan = ''  # 'once', 'views(m=10)' or 'online' (fresh views until the budget is spent)
    c.attack.query_augmentation = ''  # of the queries, with the plans 'views' and 'online'
    c.attack.student_augmentation = ''  # of the surrogate's views
    c.attack.strategy = 'random'  # of choosing queries from the pool
    c.attack.recover = ''  # of the answers, before training, e.g. 'drop_outliers | denoise'
    c.attack.accounts = 1  # sybils: the inputs are shared out among so many accounts
    # Of several accounts: inputs that all of them ask, to fit maps on; 5 times the width of an
    # answer, through noise. 0 fits none, for direct(adapter=True) with an adapter per account.
    c.attack.overlap = 256
    c.attack.budget = 9_000  # queries: one view sent is one
    c.attack.epochs = 100  # over the stored answers; plan 'online' ends with the budget instead
    c.attack.batch_size = 64
    c.attack.optimizer = 'adam(weight_decay=1e-4)'
    c.attack.schedule = 'cosine'
    c.attack.learning_rate = 1e-3

    c.legitimate = ml_collections.ConfigDict()  # users, where there is a defense
    c.legitimate.users = ('broad', 'narrow(classes=3)', 'augmenting(views=2)')
    c.legitimate.images = 1_000  # labeled inputs of a user, of the first task's training set
    c.legitimate.test_images = 0  # of the first task's test set, asked next; 0 is all
    # A user adapts: of these recoveries of answers, and of these numbers of queries of each input
    # (averaged; each is billed), the best on validation images of the user's own. '' and 1 first.
    c.legitimate.recover = ('', 'drop_outliers', 'shrink')
    c.legitimate.repeats = (1,)
    c.legitimate.model = 'probe'  # of a user's task: evaluation.probe, or the paper's 'mlp'

    c.cost = ml_collections.ConfigDict()
    c.cost.dollars_per_1000_queries = 1.0  # the price of the victim's owner
    c.cost.dollars_per_hour = 1.0  # of the machine that trains victim and surrogate

    c.baselines = ml_collections.ConfigDict()
    c.baselines.random = True  # the surrogate's network, untrained
    c.baselines.scratch_epochs = (
        100  # pretrained on the attacker's inputs, no victim; 0 leaves it out
    )
    c.baselines.scratch_batch_size = 64
    c.baselines.scratch_inputs = 0  # of the pool; 0 is as many as the attacker may ask

    c.evaluation = ml_collections.ConfigDict()
    c.evaluation.tasks = ('digits(train="train", test="test")',)  # the first serves fidelity too
    c.evaluation.probe = 'lbfgs'  # the linear probe; 'sgd' is the paper's recipe
    c.evaluation.neighbors = 20  # of the kNN classifier
    c.evaluation.shots = 5  # labeled inputs per class of the few-shot probe; 0 leaves it out
    # When the victim is measured, and fidelity to the victim: 'if_free' where no query is needed (a
    # JAX victim); 'ask' always (a victim that is no JAX function answers all inputs of the tasks
    # once, and the rows carry the bill); 'no' never.
    c.evaluation.victim = 'if_free'

    c.training = ml_collections.ConfigDict()
    c.training.checkpoint_every = 500  # steps
    c.training.log_every = 25  # steps
    c.training.steps_per_dispatch = 1  # steps that are sent to the devices as one program
    c.training.replicas = 1  # trainings of several runs that are one program, where they are alike
    c.training.log_to = ''  # loggers that get the metrics meanwhile, e.g. 'tensorboard'

    c.report = ml_collections.ConfigDict()
    # The comparisons that the report tests, as one family: dicts of 'name', of the conditions 'new'
    # and 'old' (the overrides of runs, without the seed), and of 'task', 'metric', 'margin' where
    # they are not the first task, 'linear_probe' and none. No result depends on them.
    c.report.comparisons = ()

    c.runs = ()  # overrides, one dict of dotted fields a run; () is the one run above
    return c.lock()


def field_names(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the dotted names of a config's fields.

    >>> field_names(base())[:4]
    ['attack.accounts', 'attack.batch_size', 'attack.budget', 'attack.data']
    """
    return list(_flat(config))


def check_field(config: ml_collections.ConfigDict, field: str, where: str) -> None:
    """Checks that a config has a field.

    Args:
        config: the config.
        field: the dotted name of the field.
        where: the beginning of the message.

    Raises:
        UserError: there is no such field; the message names the nearest ones.
    """
    names = field_names(config)
    if field in names:
        return
    inside = [name for name in names if name.startswith(f'{field}.')]
    if field and inside:
        raise UserError(f'{where}: write one of its fields, {", ".join(inside)}')
    group, _, last = field.rpartition('.')
    alike = [name for name in names if name.rpartition('.')[2] == last]
    alike = alike or difflib.get_close_matches(field, names, n=1, cutoff=0.5)
    hint = f'did you mean {" or ".join(alike)}? ' if alike else ''
    beside = [n.rpartition('.')[2] for n in names if group and n.startswith(f'{group}.')]
    beside = beside or list(dict.fromkeys(n.split('.')[0] for n in names))
    raise UserError(f'{where}: there is no such field: {hint}known are {", ".join(beside)}')


def grid(**fields: tuple) -> tuple[dict[str, Any], ...]:
    """Returns every combination of the fields' values, as overrides; `__` stands for the dot.

    >>> grid(attack__loss=('mse', 'infonce'), seed=(1,))
    ({'attack.loss': 'mse', 'seed': 1}, {'attack.loss': 'infonce', 'seed': 1})
    """
    names = [name.replace('__', '.') for name in fields]
    return tuple(
        dict(zip(names, values, strict=True)) for values in itertools.product(*fields.values())
    )


def check(config: ml_collections.ConfigDict, where: str = '') -> None:
    """Checks the names, types and ranges of all fields.

    Args:
        config: from `base`, or as an experiment file made it; a run lacks `runs` and `report`.
        where: the beginning of the message, e.g. 'runs[3]: '.

    Raises:
        UserError: a field is missing, unknown, or has a wrong value.
    """
    defaults, values = _flat(base()), _flat(config)
    for field in sorted(values.keys() - defaults.keys()):
        check_field(base(), field, f'{where}{checks.shown(field)}')
    absent = {field for field in _OF_ALL_RUNS if field.split('.')[0] not in config}  # of a run
    for field in sorted(defaults.keys() - values.keys() - absent):
        raise UserError(f'{where}{field} is missing: start the config from config.base()')
    for field, value in values.items():
        annotation = RANGES.get(field, _type_of(field, defaults[field]))
        if not ranges.accepts(annotation, value):
            shown, note = checks.shown(value), ranges.size_note(annotation, value)
            raise UserError(f'{where}{field}={shown}: write {ranges.accepted(annotation)}{note}')
    for name in values['modules']:
        if not all(part.isidentifier() for part in name.split('.')):
            raise UserError(f"{where}modules has {name!r}: write names such as 'my_losses'")
    for number, run in enumerate(values.get('runs', ())):
        if not (isinstance(run, Mapping | ml_collections.ConfigDict) and _all_text(run)):
            raise UserError(
                f'runs[{number}]={checks.shown(run)}: write a dict of dotted fields, such as '
                "{'attack.loss': 'mse'}"
            )
    for number, listed in enumerate(values.get('report.comparisons', ())):
        if not isinstance(listed, Mapping):
            raise UserError(
                f'report.comparisons[{number}]={checks.shown(listed)}: write a dict of '
                "'name', 'new' and 'old'"
            )


def _flat(config: ml_collections.ConfigDict, prefix: str = '') -> dict[str, Any]:
    """Returns the values by dotted field."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            fields |= _flat(value, f'{prefix}{name}.')
        else:
            fields[f'{prefix}{name}'] = value
    return fields


def _type_of(field: str, default: Any) -> Any:
    items = dict if field in _OF_ALL_RUNS else str
    return tuple[items, ...] if isinstance(default, tuple) else type(default)


def _all_text(names: Any) -> bool:
    return all(isinstance(name, str) for name in names)


def expand(
    config: ml_collections.ConfigDict, fixed: tuple[str, ...] = ()
) -> Iterator[ml_collections.ConfigDict]:
    """Yields the configs of all runs without repetitions, with the attacks' defaults filled in.

    Args:
        config: a base config with its list of `runs`.
        fixed: dotted fields of the command line, which win over the runs' overrides.

    Raises:
        UserError: a field is wrong, see `check`; a run overrides a field that does not exist, or
            with a value of another type; the attack does not exist.
    """
    check(config)
    seen = set()
    for number, overrides in enumerate(config.runs or ({},)):
        run = resolve(config, overrides, fixed, f'runs[{number}]', alone=len(config.runs) <= 1)
        if (text := run.to_json(sort_keys=True)) not in seen:
            seen.add(text)
            yield run


def resolve(
    config: ml_collections.ConfigDict,
    overrides: Mapping[str, Any],
    fixed: tuple[str, ...],
    where: str,
    alone: bool = False,
) -> ml_collections.ConfigDict:
    """Returns the config of one run, without `runs` and `report`, with the attack's defaults.

    Args:
        config: a base config.
        overrides: of the run, by dotted field.
        fixed: dotted fields of the command line, which win over the overrides.
        where: the beginning of a message on the overrides, e.g. 'runs[3]'.
        alone: whether messages on the resolved fields leave `where` out.

    Raises:
        UserError: as `expand`.
    """
    run = config.copy_and_resolve_references()
    with run.unlocked():
        del run.runs, run.report
    for field, value in overrides.items():
        if field in fixed:
            continue
        if field.split('.')[0] in ('evaluation', 'modules', 'report', 'runs'):
            raise UserError(f'{where} sets {field}: all runs share it, set it once')
        check_field(run, field, f'{where} sets {field}={checks.shown(value)}')
        try:
            run.update_from_flattened_dict({field: value})
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            message = (str(error.args[0] if error.args else '').splitlines() or [''])[0]
            value = checks.shown(value)
            raise UserError(f'{where} sets {field}={value}: {message}') from None
    check(run, '' if alone else f'{where}: ')
    for field, default in own_settings(run.attack.name).items():
        run.attack[field] = run.attack[field] or default
    return run
