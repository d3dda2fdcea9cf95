"""Training of surrogates and victims, for the facade."""

import math
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ssl_extract import attacks, augment, data, encoders, losses, training
from ssl_extract import victims as victims_room
from ssl_extract.api import inputs as given
from ssl_extract.api.asking import Answers, make_plan
from ssl_extract.api.inputs import Inputs
from ssl_extract.attacks import Attack
from ssl_extract.attacks.plans import stored_arrays
from ssl_extract.checks import check_number, check_whole
from ssl_extract.data import Dataset, decoding
from ssl_extract.encoders import chain, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.identity import content_of, spec_content
from ssl_extract.runtime import files, parallel


class Job(NamedTuple):
    """A training: which network, on what, and how.

    Attributes:
        encoder: the spec of the network.
        arrays: with a common first axis; `inputs` are among them.
        decode: the name of the decoder of `inputs`.
        epochs, batch_size, learning_rate, optimizer, schedule: see `training.fit`.
        seed: of the initialization and the order.
    """

    encoder: str
    arrays: dict[str, np.ndarray]
    decode: str
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str
    schedule: str
    seed: int

    @property
    def num_steps(self) -> int:
        """Steps of all epochs; a batch that is not full is left out."""
        return self.epochs * (len(self.arrays['inputs']) // self.batch_size)


def steal(
    answers: Answers,
    *,
    encoder: str,
    attack: str = 'direct',
    loss: str | losses.Loss = '',
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
        answers: from `collect`, under a plan that stores what the attack works with.
        encoder: the spec of the surrogate's network.
        attack: how it is trained, such as 'direct' or 'rda(views=5)'.
        loss: a spec, or a function as `losses.Loss` describes it; '' is the attack's.
        student_augmentation: what the surrogate sees; '' is the attack's own choice.
        labels: int[N], for losses that use them.
        epochs, batch_size, learning_rate, optimizer, schedule: of the training.
        seed: of its initialization and order.
        folder: where checkpoints and the encoder are kept; a killed call goes on there.

    Raises:
        UserError: an argument is wrong, no answer was granted, or the folder holds the encoder of
            another call.
    """
    if not isinstance(answers, Answers):
        raise UserError(f'answers: {type(answers).__name__} is none: give what collect returned')
    if not answers.granted.any():
        raise UserError('answers: none of the queries was answered; there is nothing to learn from')
    dataset, preset = Dataset(answers.inputs, decode=answers.decode), attacks.own_settings(attack)
    endpoint, dim = attacks.endpoint_of(attack), answers.representations.shape[-1]
    if endpoint not in ('representation', answers.endpoint):
        raise UserError(f'attack={attack!r} works on {endpoint}, the answers: {answers.endpoint}')
    seen = student_augmentation or preset['student_augmentation']
    sees = augment.make(seen)
    given.check_view(sees, given.decoded_shape(dataset), f'student_augmentation={seen!r}')
    if labels is not None:
        labels = given.dataset_of((answers.inputs, labels), 'inputs', labeled=True).labels
    compare = loss if callable(loss) else losses.make(loss or preset['loss'])
    given.check_loss(compare, dim, labels)
    plan, asked = answers.plan
    recipe = attacks.make(
        attack,
        encoder=trained.make(encoder),
        answer_dim=dim,
        plan=make_plan(plan, asked),
        loss=compare,
        student_augmentation=sees,
    )
    flat = answers.representations.reshape(-1, dim), answers.granted.ravel()
    arrays = {'inputs': answers.inputs, **stored_arrays(answers.view_seeds, *flat)}
    arrays |= {} if labels is None else {'labels': labels}
    how = (epochs, batch_size, learning_rate, optimizer, schedule, seed)
    return _fit(
        Job(encoder, arrays, answers.decode, *how),
        recipe,
        folder,
        attack=spec_content(attacks.ATTACKS, attack),
        loss=content_of(loss) if callable(loss) else spec_content(losses.LOSSES, loss),
        student_augmentation=spec_content(augment.AUGMENTATIONS, seen),
        plan=spec_content(attacks.PLANS, plan),
        query_augmentation=spec_content(augment.AUGMENTATIONS, asked),
    )


def pretrain(
    inputs: Inputs,
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
        folder: where checkpoints and the encoder are kept; a killed call goes on there.

    Raises:
        UserError: an argument is wrong, or the folder holds the encoder of another call.
    """
    dataset, sees = given.dataset_of(inputs, 'inputs'), augment.make(augmentation)
    given.check_view(sees, given.decoded_shape(dataset), f'augmentation={augmentation!r}')
    methods = victims_room.VICTIMS
    recipe = methods.make(method, encoder=trained.make(encoder), augmentation=sees)
    how = (epochs, batch_size, learning_rate, optimizer, schedule, seed)
    return _fit(
        Job(encoder, {'inputs': dataset.inputs}, dataset.decode, *how),
        attacks.Attack(recipe),
        folder,
        method=spec_content(methods, method),
        augmentation=spec_content(augment.AUGMENTATIONS, augmentation),
    )


def _fit(job: Job, made: Attack, folder: epath.PathLike | None, **described: Any) -> Encoder:
    """Trains an encoder, or reads it where the same call has trained it before.

    Args:
        job: the training.
        made: its recipe, and what is trained before.
        folder: where checkpoints and the encoder are kept; None keeps nothing.
        **described: what the encoder depends on beside the job.

    Raises:
        UserError: a setting is wrong, or the folder holds something else.
    """
    _check(job)
    call = {**described, **_describe(job)}
    with given.opened(folder) as where:
        _check_call(where, call)
        if (where / 'meta.json').exists():
            return trained.load(where)
        frozen = None
        if made.before is not None:
            steps = math.ceil(made.before_epochs * job.num_steps)
            first = _train(job, made.before, where / 'before', steps, job.seed + 1)
            frozen = {name: chain.part(first.state, name) for name in first.state.params}
        last = _train(job, made.recipe, where, job.num_steps, job.seed, frozen)
        encoder = _encoder(job, made.recipe, last.state)
        trained.save(where, encoder, seconds=round(last.seconds, 2), flops=last.flops)
    return encoder


def _describe(job: Job) -> dict[str, Any]:
    """The job by its content: own networks, decoders and optimizers with their code."""
    kinds = {
        'encoder': encoders.ENCODERS,
        'decode': data.DECODERS,
        'optimizer': training.OPTIMIZERS,
        'schedule': training.SCHEDULES,
    }
    fields = job._asdict()
    specs = {name: spec_content(registry, fields[name]) for name, registry in kinds.items()}
    return {**fields, **specs, 'arrays': content_of(job.arrays)}


def _check(job: Job) -> None:
    training.OPTIMIZERS.make(job.optimizer)
    training.SCHEDULES.make(job.schedule)
    for name in ('epochs', 'batch_size'):
        check_whole(name, getattr(job, name), 1)
    check_whole('seed', job.seed, 0)
    check_number('learning_rate', job.learning_rate, above=0)
    parallel.check_batch_size(job.batch_size, parallel.data_mesh(), 'batch_size')
    size = len(job.arrays['inputs'])
    if job.batch_size > size:
        raise UserError(f'batch_size={job.batch_size} is more than the {size} inputs; write less')


def _check_call(folder: epath.Path, call: dict[str, Any]) -> None:
    """Refuses a folder in which another call has trained."""
    path = folder / 'call.json'
    begun = any(any(folder.glob(kind)) for kind in ('meta.json', 'before', 'checkpoints/[0-9]*'))
    if not begun:
        files.write_json(path, call)
    there = files.read_json(path) if path.exists() else {}
    if there != call:
        differing = ', '.join(sorted(k for k in call if there.get(k) != call[k]))
        raise UserError(
            f'{folder} holds the encoder of another call ({differing} differs): name another folder'
        )


def _train(
    job: Job,
    recipe: training.Recipe,
    folder: epath.Path,
    num_steps: int,
    seed: int,
    frozen: dict[str, Any] | None = None,
) -> training.Fit:
    return training.fit(
        recipe,
        job.arrays,
        num_steps=num_steps,
        batch_size=job.batch_size,
        learning_rate=job.learning_rate,
        optimizer=job.optimizer,
        schedule=job.schedule,
        seed=seed,
        folder=folder,
        mesh=parallel.data_mesh(),
        decode=decoding.make(job.decode, job.arrays['inputs'].dtype),
        frozen=frozen,
    )


def _encoder(job: Job, recipe: training.Recipe, state: training.TrainState) -> Encoder:
    """The trained network with the heads that stood behind it."""
    heads = tuple((name, spec) for name, spec in recipe.heads if name in state.params)
    return Encoder(
        job.encoder,
        chain.part(state, 'encoder'),
        given.decoded_shape(Dataset(job.arrays['inputs'], decode=job.decode)),
        heads,
        {name: chain.part(state, name) for name, _ in heads},
    )
