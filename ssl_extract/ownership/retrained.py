"""Obfuscations that train: fine-tuning and distillation.

Both train on the attacker's own inputs. Importing the module registers them.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np

from ssl_extract import attacks, augment, losses, numerics, training
from ssl_extract.attacks.plans import stored_arrays
from ssl_extract.data import decoding
from ssl_extract.encoders import chain, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.ownership.represented import represent_of
from ssl_extract.ownership.suspects import Suspect, register
from ssl_extract.ranges import Count, Positive, Whole
from ssl_extract.registry import check_least_batch
from ssl_extract.runtime import parallel
from ssl_extract.training import Recipe, TrainState
from ssl_extract.victims import pretraining

_OPTIMIZER = 'adam'


@register('fine_tune', gives='encoder', needs=('weights', 'inputs'))
def fine_tune(
    steps: Count = 100,
    learning_rate: Positive = 1e-4,
    method: str = 'simclr',
    augmentation: str = 'simclr',
    batch_size: Count = 64,
    *,
    inputs: np.ndarray,
    seed: Whole,
) -> Callable[[Encoder], Encoder]:
    """Goes on with pretraining, from the encoder's weights; gives an `Encoder`.

    The method's head starts anew and is thrown away. The statistics of BatchNorm move too.

    >>> tune = fine_tune(steps=10, inputs=np.zeros((64, 8, 8, 3), np.float32), seed=0)

    Args:
        steps: of Adam; the learning rate falls to 0 along half a cosine.
        learning_rate: of the first step.
        method: the spec of a pretraining method.
        augmentation: the spec of a view.
        batch_size: inputs in a step.
        inputs: float32 [N, ...], decoded, of the attacker.
        seed: of the head, the order and the views.
    """

    check_least_batch('batch_size', batch_size, (pretraining.VICTIMS, method))

    def change(encoder: Encoder) -> Encoder:
        recipe = _pretraining(encoder.spec, method, augmentation)
        arrays = {'inputs': inputs}
        state = _train(recipe, arrays, steps, batch_size, learning_rate, seed, encoder)
        return encoder._replace(variables=chain.part(state, 'encoder'))

    return change


@register('distill', gives='encoder', needs=('inputs',))
def distill(
    encoder: str,
    steps: Count = 1_000,
    learning_rate: Positive = 1e-3,
    batch_size: Count = 64,
    *,
    inputs: np.ndarray,
    seed: Whole,
) -> Callable[[Suspect], Encoder]:
    """Trains another network on the representations of the stolen one; gives an `Encoder`.

    The training is that of `ssl_extract.steal` with the attack 'direct' and the loss 'mse': where
    the widths differ, a linear map stands behind the network and is thrown away.

    >>> small = 'resnet18(stem="patch", width=8, stages=(1,))'
    >>> copy = distill(small, steps=10, inputs=np.zeros((64, 8, 8, 3), np.float32), seed=0)

    Args:
        encoder: the spec of the new network.
        steps: of Adam; the learning rate falls to 0 along half a cosine.
        learning_rate: of the first step.
        batch_size: inputs in a step.
        inputs: float32 [N, ...], decoded, of the attacker.
        seed: of the new weights and the order.
    """

    def change(stolen: Suspect) -> Encoder:
        answers = represent_of(stolen)(inputs)
        seeds, answered = np.zeros((len(inputs), 1), np.uint32), np.ones(len(inputs), bool)
        arrays = {'inputs': inputs, **stored_arrays(seeds, answers, answered)}
        recipe = _extraction(encoder, answers.shape[1])
        state = _train(recipe, arrays, steps, batch_size, learning_rate, seed)
        return Encoder(encoder, chain.part(state, 'encoder'), inputs.shape[1:])

    return change


# Cached, so that all suspects of one network share one compiled step.
@functools.cache
def _pretraining(encoder: str, method: str, augmentation: str) -> Recipe:
    views = augment.make(augmentation)
    return pretraining.VICTIMS.make(method, encoder=trained.make(encoder), augmentation=views)


@functools.cache
def _extraction(encoder: str, answer_dim: int) -> Recipe:
    return attacks.make(
        'direct',
        encoder=trained.make(encoder),
        answer_dim=answer_dim,
        plan=attacks.PLANS.make('once'),
        loss=losses.make('mse'),
        student_augmentation=augment.make(''),
    ).recipe


def _train(
    recipe: Recipe,
    arrays: dict[str, np.ndarray],
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: Whole,
    start: Encoder | None = None,
) -> TrainState:
    """Trains a recipe on one device, from the weights of an encoder or from new ones.

    Raises:
        UserError: there are fewer inputs than a batch, or the weights are not finite in the end.
    """
    mesh, size = parallel.data_mesh(1), len(arrays['inputs'])
    if batch_size > size:
        raise UserError(f'batch_size={batch_size} is more than the {size} inputs; write less')
    init = training.make_init(recipe, _OPTIMIZER, arrays['inputs'].shape[1:], mesh)
    initial = start and {'encoder': jax.device_get(start.variables)}  # from any devices
    state = init(jax.random.key(seed), (), None, initial)
    step = training.make_step(recipe, _OPTIMIZER, 'cosine', mesh, decoding.identity)
    per_epoch = size // batch_size
    for number in range(steps):
        epoch, place = divmod(number, per_epoch)
        rows = training.epoch_order(seed, epoch, size)[place * batch_size :][:batch_size]
        batch = {name: array[rows] for name, array in arrays.items()}
        batch = jax.device_put(batch, parallel.batch_sharding(mesh))
        state, _, _ = step(state, batch, None, learning_rate, steps)
    if not numerics.is_finite((state.params, state.batch_stats)):
        raise UserError(f'learning_rate={learning_rate}: the training diverged; write less')
    return state
