"""Training of surrogates and victims, for the facade."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ssl_extract import attacks, augment, data, encoders, losses, training
from ssl_extract import victims as victims_room
from ssl_extract.api import inputs as inputs_lib
from ssl_extract.api import saved
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
from ssl_extract.registry import Registry, check_least_batch
from ssl_extract.runtime import files, parallel


class Job(NamedTuple):
    """A training: the network, the arrays and the settings.

    Attributes:
        encoder: the spec of the network.
        arrays: with a common first axis; `inputs` are among them.
        decode: the name of the decoder of `inputs`.
        epochs, batch_size, learning_rate, optimizer, schedule: see `training.fit`.
        seed: the seed of the initialization and the order.
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
        """Counts the steps of all epochs; a batch that is not full is left out."""
        return self.epochs * (len(self.arrays['inputs']) // self.batch_size)


def steal(
    answers: Answers,
    *,
    encoder: str,
    attack: str = 'direct',
    loss: str | losses.Loss = '',
    student_augmentation: str = '',
    labels: np.ndarray | None = None,
    init: Encoder | epath.PathLike | None = None,
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
        answers: from `collect`, under a plan whose answers the attack can use.
        encoder: the spec of the surrogate's network.
        attack: the spec of the attack, such as 'direct' or 'rda(views=5)'.
        loss: a spec, or a function as `losses.Loss` describes it; '' is the attack's loss.
        student_augmentation: the spec of the surrogate's views; '' is the attack's choice.
        labels: int[N], for losses that use labels.
        init: the encoder that the surrogate starts from, or its folder or file; None is untrained.
        epochs, batch_size, learning_rate, optimizer, schedule: of the training.
        seed: the seed of the initialization and the order.
        folder: keeps checkpoints and the encoder; a killed call goes on there.

    Returns:
        The surrogate, with the heads that the attack trains behind it.

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
        raise UserError(
            f'attack={attack!r} works on {endpoint}, the answers: {answers.endpoint}; write '
            f'another attack, or ask a victim of victims.from_flax(..., answers={endpoint!r})'
        )
    seen = student_augmentation or preset['student_augmentation']
    inputs_lib.view_of(seen, dataset, 'student_augmentation')
    if labels is not None:
        labels = inputs_lib.dataset_of((answers.inputs, labels), 'inputs', labeled=True).labels
    chosen = loss or preset['loss']
    compare = chosen if callable(chosen) else losses.make(chosen)
    parts = [] if callable(chosen) else [(losses.LOSSES, chosen)]
    inputs_lib.check_loss(compare, dim, labels)
    plan, query_augmentation = answers.plan
    recipe = _extraction(attack, encoder, dim, answers.plan, chosen, seen)
    flat = answers.representations.reshape(-1, dim), answers.granted.ravel()
    arrays = {'inputs': answers.inputs, **stored_arrays(answers.view_seeds, *flat)}
    arrays |= {} if labels is None else {'labels': labels}
    how = (epochs, batch_size, learning_rate, optimizer, schedule, seed)
    parts = (*parts, (attacks.ATTACKS, attack))
    began = _start(init, encoder, Dataset(answers.inputs, decode=answers.decode))
    # Inputs without an answer do not count in a batch.
    answered = answers.granted.reshape(len(answers.inputs), -1).any(axis=1)
    check_least_batch('answered inputs', int(answered.sum()), *parts)
    return _fit(
        Job(encoder, arrays, answers.decode, *how),
        parts,
        recipe,
        folder,
        began and {'encoder': began.variables},
        attack=spec_content(attacks.ATTACKS, attack),
        loss=content_of(loss) if callable(loss) else spec_content(losses.LOSSES, loss),
        student_augmentation=spec_content(augment.AUGMENTATIONS, seen),
        plan=spec_content(attacks.PLANS, plan),
        query_augmentation=spec_content(augment.AUGMENTATIONS, query_augmentation),
        **({} if began is None else {'init': trained.content_hash(began)}),
    )


def _start(init: Encoder | epath.PathLike | None, encoder: str, inputs: Dataset) -> Encoder | None:
    """Returns the encoder that a surrogate starts from."""
    if init is None:
        return None
    found = init if isinstance(init, Encoder) else saved.load(init)
    shape = inputs_lib.decoded_shape(inputs)
    if not isinstance(found, Encoder) or (found.spec, found.input_shape) != (encoder, shape):
        given = f'{found.spec} on {list(found.input_shape)}' if isinstance(found, Encoder) else init
        raise UserError(
            f'init: {given} is not the surrogate, {encoder} on {list(shape)}: give an encoder of '
            'that network and shape'
        )
    return found


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
        encoder: the spec of the encoder's network.
        method: the spec of the pretraining, such as 'simclr' or 'simsiam'.
        augmentation: the spec of a view.
        epochs, batch_size, learning_rate, optimizer, schedule: of the training.
        seed: the seed of the initialization and the order.
        folder: keeps checkpoints and the encoder; a killed call goes on there.

    Returns:
        The encoder, with the heads that the method trains behind it.

    Raises:
        UserError: an argument is wrong, or the folder holds the encoder of another call.
    """
    dataset = inputs_lib.dataset_of(inputs, 'inputs')
    inputs_lib.view_of(augmentation, dataset, 'augmentation')
    methods = victims_room.VICTIMS
    recipe = _pretraining(method, encoder, augmentation)
    how = (epochs, batch_size, learning_rate, optimizer, schedule, seed)
    return _fit(
        Job(encoder, {'inputs': dataset.inputs}, dataset.decode, *how),
        ((methods, method),),
        attacks.Attack(recipe),
        folder,
        method=spec_content(methods, method),
        augmentation=spec_content(augment.AUGMENTATIONS, augmentation),
    )


def _extraction(
    attack: str, encoder: str, dim: int, plan: tuple[str, str], loss: str | losses.Loss, seen: str
) -> Attack:
    """Makes an attack; the same specs give the same object, which is compiled once."""
    if callable(loss):
        return _make_attack.__wrapped__(attack, encoder, dim, plan, loss, seen, ())
    content = _contents(
        (attacks.ATTACKS, attack),
        (encoders.ENCODERS, encoder),
        (attacks.PLANS, plan[0]),
        (augment.AUGMENTATIONS, plan[1]),
        (augment.AUGMENTATIONS, seen),
        (losses.LOSSES, loss),
    )
    return _make_attack(attack, encoder, dim, plan, loss, seen, content)


def _contents(*specs: tuple[Registry, str]) -> tuple[str, ...]:
    """Returns the key of a recipe: one's own part, edited under the same name, is another one."""
    return tuple(spec_content(registry, spec) for registry, spec in specs)


@functools.lru_cache(maxsize=64)
def _make_attack(
    attack: str,
    encoder: str,
    dim: int,
    plan: tuple[str, str],
    loss: str | losses.Loss,
    seen: str,
    content: tuple[str, ...],
) -> Attack:
    del content  # only a part of the key
    return attacks.make(
        attack,
        encoder=trained.make(encoder),
        answer_dim=dim,
        plan=make_plan(*plan),
        loss=loss if callable(loss) else losses.make(loss),
        student_augmentation=augment.make(seen),
    )


def _pretraining(method: str, encoder: str, augmentation: str) -> training.Recipe:
    """Makes a pretraining; the same specs give the same object, which is compiled once."""
    content = _contents(
        (victims_room.VICTIMS, method),
        (encoders.ENCODERS, encoder),
        (augment.AUGMENTATIONS, augmentation),
    )
    return _make_pretraining(method, encoder, augmentation, content)


@functools.lru_cache(maxsize=64)
def _make_pretraining(
    method: str, encoder: str, augmentation: str, content: tuple[str, ...]
) -> training.Recipe:
    del content  # only a part of the key
    views = augment.make(augmentation)
    return victims_room.VICTIMS.make(method, encoder=trained.make(encoder), augmentation=views)


def _fit(
    job: Job,
    parts: tuple[tuple[Registry, str], ...],
    phases: Attack,
    folder: epath.PathLike | None,
    initial: dict[str, Any] | None = None,
    **described: Any,
) -> Encoder:
    """Trains an encoder, or reads the encoder that the same call has trained before.

    Args:
        job: the training.
        parts: registries and specs that may need a larger batch; see `check_least_batch`.
        phases: the recipe of the encoder, and that of the phase before.
        folder: keeps checkpoints and the encoder; None keeps nothing.
        initial: variables of networks to go on with; see `training.init_state`.
        **described: the arguments that the encoder depends on beside the job.

    Raises:
        UserError: a setting is wrong, or the folder holds something else.
    """
    _check(job, parts)
    dataset = Dataset(job.arrays['inputs'], name='inputs', decode=job.decode)
    encoders.check_vocabulary('encoder', job.encoder, dataset)
    call = {**described, **_describe(job)}
    with (
        inputs_lib.opened(folder) as where,
        files.advised(f'move {where} away and call again'),
    ):
        _check_call(where, call)
        if (where / 'meta.json').exists():
            return trained.load(where)
        frozen = None
        if phases.before is not None:
            steps = math.ceil(phases.before_epochs * job.num_steps)
            rate = phases.before_learning_rate or job.learning_rate
            first_job = job._replace(learning_rate=rate)
            first = _train(first_job, phases.before, where / 'before', steps, job.seed + 1)
            frozen = {name: chain.part(first.state, name) for name in first.state.params}
        last = _train(job, phases.recipe, where, job.num_steps, job.seed, frozen, initial)
        encoder = _encoder(job, phases.recipe, last.state)
        trained.save(where, encoder, seconds=round(last.seconds, 2), flops=last.flops)
    return encoder


def _describe(job: Job) -> dict[str, Any]:
    """Describes a job by content: the user's networks, decoders and optimizers with their code."""
    kinds = {
        'encoder': encoders.ENCODERS,
        'decode': data.DECODERS,
        'optimizer': training.OPTIMIZERS,
        'schedule': training.SCHEDULES,
    }
    fields = job._asdict()
    specs = {name: spec_content(registry, fields[name]) for name, registry in kinds.items()}
    arrays = {k: v.contents() if isinstance(v, data.Records) else v for k, v in job.arrays.items()}
    return {**fields, **specs, 'arrays': content_of(arrays)}


def _check(job: Job, parts: tuple[tuple[Registry, str], ...]) -> None:
    training.make_optimizer(job.optimizer)
    training.SCHEDULES.make(job.schedule)
    for name in ('epochs', 'batch_size'):
        check_whole(name, getattr(job, name), 1)
    check_whole('seed', job.seed, 0)
    check_number('learning_rate', job.learning_rate, above=0)
    check_least_batch('batch_size', job.batch_size, *parts)
    parallel.check_batch_size(job.batch_size, parallel.data_mesh(), 'batch_size')
    size = len(job.arrays['inputs'])
    if job.batch_size > size:
        raise UserError(f'batch_size={job.batch_size} is more than the {size} inputs; write less')


def _check_call(folder: epath.Path, call: dict[str, Any]) -> None:
    """Refuses a folder in which another call has trained."""
    path = folder / 'call.json'
    begun = any(files.find(folder, kind) for kind in ('meta.json', 'before', 'checkpoints/[0-9]*'))
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
    initial: dict[str, Any] | None = None,
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
        initial=initial,
    )


def _encoder(job: Job, recipe: training.Recipe, state: training.TrainState) -> Encoder:
    """Returns the trained network with the heads behind it."""
    heads = tuple((name, spec) for name, spec in recipe.heads if name in state.params)
    return Encoder(
        job.encoder,
        chain.part(state, 'encoder'),
        inputs_lib.decoded_shape(Dataset(job.arrays['inputs'], decode=job.decode)),
        heads,
        {name: chain.part(state, name) for name, _ in heads},
    )
