"""The facade for notebooks and own programs: arrays, functions and keywords, no config.

    victim = ssl_extract.victims.from_function(fn, dim=16)
    oracle = ssl_extract.make_oracle(victim, 'gaussian_noise(stddev=0.1)', budget=200)
    answers = ssl_extract.collect(oracle, inputs, folder='store')
    stolen = ssl_extract.steal(answers, encoder='resnet18(width=8)', loss='mse', epochs=5)
    rows = ssl_extract.evaluate(stolen, train=(x, y), test=(x2, y2), victim=victim)

Every function computes on all devices. What is written down can be read by
`load` (encoders), `collect` (answers) and `results` (the runs of an experiment).
"""

import contextlib
import hashlib
import inspect
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from ssl_extract import attacks, augment, data, losses, oracle, report, training
from ssl_extract import victims as victims_room
from ssl_extract.attacks.plans import sent_views, stored_arrays, view_seeds
from ssl_extract.data import Dataset
from ssl_extract.encoders import chain, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.evaluation import Task
from ssl_extract.evaluation.assess import assess
from ssl_extract.oracle import Oracle, store
from ssl_extract.oracle.store import Bill
from ssl_extract.runtime import files, parallel
from ssl_extract.victims.model import Victim

Pair = tuple[np.ndarray, np.ndarray]


class Answers(NamedTuple):
    """What an account has asked and been answered.

    Attributes:
        inputs: [N, ...], as they were given.
        representations: float32[N, D], the answer to each; [N, m, D] under a plan of m views.
        granted: bool[N] or [N, m], whether there is one.
        bill: what the queries cost.
        plan: how they were asked: the plan's spec and the query augmentation's.
        view_seeds: uint32[N, m], from which a view is made again.
        decode: the name of the inputs' decoder.
    """

    inputs: np.ndarray
    representations: np.ndarray
    granted: np.ndarray
    bill: Bill
    plan: tuple[str, str]
    view_seeds: np.ndarray
    decode: str


def make_oracle(
    victim: Victim | Encoder | Callable,
    defense: Any = None,
    *,
    budget: int,
) -> Oracle:
    """Black-box access to a victim behind a defense; see `ssl_extract.oracle.make_oracle`.

    Args:
        victim: a `Victim`, an `Encoder`, or a JAX function `[B, ...] -> [B, D]`.
        defense: a spec, a `Defense` or None.
        budget: queries that one account may send.
    """
    if isinstance(victim, Encoder):
        victim = victims_room.from_encoder(victim)
    return oracle.make_oracle(victim, defense, budget=budget)


def collect(
    oracle: Oracle,
    inputs: np.ndarray,
    *,
    folder: epath.PathLike | None = None,
    batch_size: int = 64,
    seed: int = 1,
    plan: str = 'once',
    query_augmentation: str = 'none',
    decode: str = '',
) -> Answers:
    """Sends inputs to an oracle and keeps the answers; what the folder holds is not sent again.

    The folder is one account: its budget goes on from call to call, also after an error or a kill.

    Args:
        oracle: from `make_oracle`.
        inputs: [N, ...], uint8 images or floating vectors, as the victim is to see them after
            `decode`.
        folder: of the account; None opens a new one that is forgotten afterwards.
        batch_size: queries sent at a time.
        seed: of the account's key and of the views.
        plan: a stored query plan, 'once', 'views(m=2)' or 'repeat(m=4)'.
        query_augmentation: what a view is.
        decode: the name of a decoder (`data.DECODERS`); '' goes by the type of the inputs.

    Raises:
        UserError: more queries are to be sent than the budget leaves (nothing is sent then), or
            the folder is another account's.
    """
    dataset = data.checked(Dataset(np.asarray(inputs), decode=decode))
    made = attacks.PLANS.make(plan, query_augmentation=augment.make(query_augmentation))
    if not made.stored:
        raise UserError(f"plan={plan!r} asks while it trains: write 'once', 'views(m=2)', ...")
    seeds = view_seeds(made, len(dataset.inputs), seed)
    index, sent = sent_views(seeds, seeds.size)
    identity = {'victim': oracle.about.victim, 'defense': oracle.about.defense, 'seed': seed}
    mesh = parallel.data_mesh()
    parallel.check_batch_size(batch_size, mesh, 'batch_size')
    with _folder(folder) as where:
        answers = store.collect(
            where,
            oracle,
            jax.random.key(seed),
            store.Queries(dataset.inputs, index, sent, made.view, data.decoder(dataset)),
            batch_size=batch_size,
            mesh=mesh,
            identity=identity,
        )
    shape = seeds.shape if made.stored > 1 else seeds.shape[:1]
    return Answers(
        dataset.inputs,
        answers.representations.reshape(*shape, -1),
        answers.granted.reshape(shape),
        answers.bill,
        (plan, query_augmentation),
        seeds,
        dataset.decode,
    )


def steal(
    answers: Answers,
    *,
    encoder: str,
    attack: str = 'direct',
    loss: str | Callable = '',
    student_augmentation: str = '',
    labels: np.ndarray | None = None,
    epochs: int = 100,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    optimizer: str = 'adam(weight_decay=1e-4)',
    schedule: str = 'cosine',
    seed: int = 1,
    folder: epath.PathLike | None = None,
) -> Encoder:
    """Trains a surrogate on answers.

    Args:
        answers: from `collect`.
        encoder: the spec of the surrogate's network.
        attack: how it is trained, such as 'direct' or 'rda(views=5)'.
        loss: a spec, or a function `loss(student, teacher, *, labels, where)`; '' is the attack's.
        student_augmentation: what the surrogate sees; '' is the attack's own choice.
        labels: int[N], for losses that use them.
        epochs, batch_size, learning_rate, optimizer, schedule: of the training.
        seed: of its initialization and order.
        folder: where checkpoints and the encoder are kept; a killed call goes on there.

    Raises:
        UserError: an argument is wrong, no answer was granted, or the folder holds the encoder of
            another call.
    """
    preset = attacks.own_settings(attack)
    plan, asked = answers.plan
    dataset = Dataset(answers.inputs, decode=answers.decode)
    decode, network = data.decoder(dataset), trained.make(encoder)
    if not answers.granted.any():
        raise UserError('answers: none of the queries was answered; there is nothing to learn from')
    made = attacks.make(
        attack,
        encoder=network,
        answer_dim=answers.representations.shape[-1],
        plan=attacks.PLANS.make(plan, query_augmentation=augment.make(asked)),
        loss=loss if callable(loss) else losses.make(loss or preset['loss']),
        student_augmentation=augment.make(student_augmentation or preset['student_augmentation']),
    )
    stored = stored_arrays(
        answers.view_seeds,
        answers.representations.reshape(answers.view_seeds.size, -1),
        answers.granted.ravel(),
    )
    arrays = {'inputs': answers.inputs, **stored}
    arrays |= {} if labels is None else {'labels': np.asarray(labels, np.int32)}
    how = dict(optimizer=optimizer, schedule=schedule, learning_rate=learning_rate)
    call = {'attack': attack, 'loss': _source_of(loss), 'encoder': encoder, 'epochs': epochs}
    call |= {'student_augmentation': student_augmentation, 'data': _digest(arrays), 'plan': plan}
    call |= {'seed': seed, 'batch_size': batch_size, **how}
    return _fit(
        made.recipe, arrays, encoder, decode, made, epochs, batch_size, seed, how, folder, call
    )


def pretrain(
    inputs: np.ndarray,
    *,
    encoder: str,
    method: str = 'simclr',
    augmentation: str = 'simclr',
    epochs: int = 200,
    batch_size: int = 256,
    learning_rate: float = 3e-4,
    optimizer: str = 'adam(weight_decay=1e-4)',
    schedule: str = 'cosine',
    seed: int = 0,
    decode: str = '',
    folder: epath.PathLike | None = None,
) -> Encoder:
    """Pretrains an encoder without labels, to be a victim or a baseline.

    Args:
        inputs: [N, ...].
        encoder: the spec of its network.
        method: of the pretraining, such as 'simclr' or 'simsiam'.
        augmentation: what a view is.
        epochs, batch_size, learning_rate, optimizer, schedule: of the training.
        seed: of its initialization and order.
        decode: the name of a decoder; '' goes by the type of the inputs.
        folder: where checkpoints and the encoder are kept; a killed call goes on there.
    """
    dataset = data.checked(Dataset(np.asarray(inputs), decode=decode))
    network = trained.make(encoder)
    recipe = victims_room.VICTIMS.make(
        method, encoder=network, augmentation=augment.make(augmentation)
    )
    how = dict(optimizer=optimizer, schedule=schedule, learning_rate=learning_rate)
    arrays = {'inputs': dataset.inputs}
    call = {'method': method, 'augmentation': augmentation, 'encoder': encoder, 'epochs': epochs}
    call |= {'data': _digest(arrays), 'seed': seed, 'batch_size': batch_size, **how}
    decoder = data.decoder(dataset)
    return _fit(
        recipe, arrays, encoder, decoder, None, epochs, batch_size, seed, how, folder, call
    )


def evaluate(
    encoder: Encoder,
    *,
    train: Pair,
    test: Pair,
    victim: Victim | Encoder | None = None,
    name: str = 'task',
    probe: str = 'lbfgs',
    neighbors: int = 20,
    shots: int = 5,
    metrics: tuple[str, ...] | None = None,
) -> list[dict[str, Any]]:
    """Measures an encoder on a labeled task, and its fidelity to the victim where that is given.

    A victim that is no JAX function is asked for every input of the task, once: what that sends
    stands in the column `queries_billed` of the rows of the victim.

    Args:
        encoder: what is measured.
        train: (inputs [N, ...], labels int[N]) that classifiers are fitted on.
        test: (inputs, labels) that they are tested on; none of them may be among `train`.
        victim: is measured too, and the encoder compared with it.
        name: of the task.
        probe, neighbors, shots, metrics: see `evaluation.assess`.

    Returns:
        Rows as in results.jsonl: role, task, metric, value, ci_low, ci_high, n and the bill.
    """
    classes = int(max(np.max(train[1]), np.max(test[1]))) + 1
    parts = [
        data.checked(Dataset(np.asarray(x), np.asarray(y), classes, f'{name}/{part}'))
        for part, (x, y) in (('train', train), ('test', test))
    ]
    data.check_disjoint(*parts)
    measure = dict(probe=probe, neighbors=neighbors, shots=shots, metrics=metrics)
    measure['mesh'] = parallel.data_mesh()
    tasks, rows, arrays = (Task(name, *parts),), [], None
    if victim is not None:
        known = victims_room.from_encoder(victim) if isinstance(victim, Encoder) else victim
        encode = (_call, known.answer) if known.traced else _Counted(known)
        assessment = assess(encode, tasks, **measure)
        billed = {} if known.traced else {'queries_billed': encode.count}
        rows = [{'role': 'victim', **billed, **row} for row in assessment.measured]
        arrays = assessment.arrays
    pair = (encoder.network.apply, encoder.variables)
    surrogate = assess(pair, tasks, victim=arrays, **measure)
    return rows + [{'role': 'surrogate', **row} for row in surrogate.measured]


def load(folder: epath.PathLike) -> Encoder:
    """Reads an encoder: a stage's folder of an experiment, or the `folder` of `steal`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return trained.load(folder)


def results(*workdirs: epath.PathLike) -> Any:
    """The rows of all finished runs of workdirs: a pandas frame where pandas is there, else dicts.

    Raises:
        UserError: no run is finished there.
    """
    rows = report.tidy(report.read_runs(*workdirs))
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)


class _Counted:
    """A victim that is no JAX function, with the number of inputs that it was sent."""

    def __init__(self, victim: Victim):
        self.victim, self.count = victim, 0

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        from ssl_extract.oracle.remote import answers_of

        self.count += len(inputs)
        return answers_of(self.victim, inputs)


def _call(answer: Callable, inputs: jax.Array) -> jax.Array:
    return answer(inputs)


@contextlib.contextmanager
def _folder(folder: epath.PathLike | None) -> Iterator[epath.Path]:
    """The folder, or one that is removed afterwards."""
    if folder is not None:
        yield epath.Path(folder).expanduser().absolute()
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield epath.Path(temporary)


def _fit(
    recipe: training.Recipe,
    arrays: dict[str, np.ndarray],
    encoder: str,
    decode: Callable,
    attack: attacks.Attack | None,
    epochs: int,
    batch_size: int,
    seed: int,
    how: dict[str, Any],
    folder: epath.PathLike | None,
    call: dict[str, Any],
) -> Encoder:
    """Trains what a call describes, after what its attack trains first, and keeps it."""
    mesh, size = parallel.data_mesh(), len(arrays['inputs'])
    parallel.check_batch_size(batch_size, mesh, 'batch_size')
    if batch_size > size:
        raise UserError(f'batch_size={batch_size} is more than the {size} inputs; write less')
    steps = epochs * (size // batch_size)
    common = dict(batch_size=batch_size, mesh=mesh, decode=decode, **how)
    with _folder(folder) as where:
        _check_call(where, call)
        if (where / 'meta.json').exists():
            return trained.load(where, mesh)
        frozen = None
        if attack is not None and attack.before is not None:
            count = int(np.ceil(attack.before_epochs * steps))
            first = training.fit(
                attack.before,
                arrays,
                num_steps=count,
                seed=seed + 1,
                folder=where / 'before',
                description='before',
                **common,
            )
            frozen = {name: chain.part(first.state, name) for name in first.state.params}
        fit = training.fit(
            recipe, arrays, num_steps=steps, seed=seed, folder=where, frozen=frozen, **common
        )
        heads = tuple((name, spec) for name, spec in recipe.heads if name in fit.state.params)
        stored = jax.ShapeDtypeStruct((1, *arrays['inputs'].shape[1:]), arrays['inputs'].dtype)
        made = Encoder(
            encoder,
            chain.part(fit.state, 'encoder'),
            jax.eval_shape(decode, stored).shape[1:],
            heads,
            {name: chain.part(fit.state, name) for name, _ in heads},
        )
        trained.save(where, made, seconds=round(fit.seconds, 2), flops=fit.flops)
    return made


def _check_call(folder: epath.Path, call: dict[str, Any]) -> None:
    """Refuses a folder that belongs to another call."""
    path = folder / 'call.json'
    if not path.exists():
        files.write_json(path, call)
    there = files.read_json(path)
    if there != call:
        differing = ', '.join(sorted(k for k in call if there.get(k) != call[k]))
        raise UserError(
            f'folder={str(folder)!r} holds the encoder of another call ({differing} differs): '
            'name another folder'
        )


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f'{name} {arrays[name].dtype} {arrays[name].shape}'.encode())
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()[:16]


def _source_of(fn: str | Callable) -> str:
    """A spec as it is; a function by its name and source, so that an edited one is another."""
    if isinstance(fn, str):
        return fn
    name = getattr(fn, '__qualname__', type(fn).__qualname__)
    try:
        source = inspect.getsource(fn if hasattr(fn, '__code__') else type(fn))
    except (OSError, TypeError):
        source = repr(getattr(getattr(fn, '__code__', None), 'co_code', b''))
    return f'{name} {hashlib.sha256(source.encode()).hexdigest()[:16]}'
