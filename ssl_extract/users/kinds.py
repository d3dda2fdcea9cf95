"""Kinds of legitimate users, and the classifiers that they fit.

A new kind of user is a factory that returns a `User`, under `@users.register('its_name')`; a new
classifier is one that returns `fit`, under `@users.register_model('its_name')`.
"""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssl_extract import augment
from ssl_extract.checks import check_whole
from ssl_extract.errors import UserError
from ssl_extract.evaluation.probe import predict
from ssl_extract.evaluation.probes import PROBES
from ssl_extract.registry import Registry

USERS = Registry('legitimate user')
MODELS = Registry("legitimate user's model")
register, register_model = USERS.register, MODELS.register

Predict = Callable[[np.ndarray], np.ndarray]  # features [N, D] -> classes [N]


class User(NamedTuple):
    """What a user asks.

    Attributes:
        classes: `(rng, num_classes) -> int[K]`, those of the task that it has to do with.
        views: augmented views asked of each of its own images; 0: the image as it is. Test images
            are always asked as they are.
        augmentation: what a view is; see `ssl_extract.augment`.
    """

    classes: Callable[[np.random.Generator, int], np.ndarray]
    views: int = 0
    augmentation: str = 'none'


@register('broad')
def broad() -> User:
    """Has images of all classes."""
    return User(_every)


@register('narrow')
def narrow(classes: int = 3) -> User:
    """Has images of a few classes, drawn from the seed, and is tested on those.

    Raises:
        UserError: `classes` is not a whole number of at least 2, or more than the task has.
    """
    check_whole('classes', classes, 2)

    def draw(rng: np.random.Generator, num_classes: int) -> np.ndarray:
        if classes > num_classes:
            raise UserError(f'classes={classes}: the first task has {num_classes}; write fewer')
        return rng.choice(num_classes, classes, replace=False)

    return User(draw)


@register('augmenting')
def augmenting(views: int = 2, augmentation: str = 'simclr(strength=0.5, min_scale=0.2)') -> User:
    """Has images of all classes and asks `views` augmented views of each, to train on them all.

    Raises:
        UserError: `views` is not a whole number of at least 1, or there is no such augmentation.
    """
    check_whole('views', views, 1)
    augment.make(augmentation)
    return User(_every, views, augmentation)


@register_model('probe')
def linear(probe: str = 'lbfgs') -> Callable[..., Predict]:
    """The linear probe that the encoders are evaluated with."""

    def fit(features: np.ndarray, labels: np.ndarray, num_classes: int) -> Predict:
        return functools.partial(predict, PROBES.make(probe)(features, labels, num_classes))

    return fit


@register_model('mlp')
def mlp(
    width: int = 512,
    epochs: int = 100,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    seed: int = 0,
) -> Callable[..., Predict]:
    """The user of arXiv 2205.07890 (its code): two layers, ReLU, Adam with decay in the gradient.

    The biases do not decay, as they do there; the initialization is scikit-learn's (Glorot).
    """
    for name, value in (('width', width), ('epochs', epochs), ('batch_size', batch_size)):
        check_whole(name, value, 1)
    if not learning_rate > 0 or not weight_decay >= 0:
        raise UserError(
            f'learning_rate={learning_rate}, weight_decay={weight_decay}: write a rate above 0 '
            'and a decay of at least 0'
        )

    def fit(features: np.ndarray, labels: np.ndarray, num_classes: int) -> Predict:
        from sklearn.exceptions import ConvergenceWarning  # takes a second to import
        from sklearn.neural_network import MLPClassifier

        del num_classes  # those of the labels
        size = min(batch_size, len(labels))
        network = MLPClassifier(
            (width,),
            alpha=weight_decay * size,  # scikit-learn divides the penalty by the batch
            batch_size=size,
            learning_rate_init=learning_rate,
            max_iter=epochs,
            n_iter_no_change=epochs,  # all of them, whether the loss still falls or not
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', ConvergenceWarning)
            return network.fit(features, labels).predict

    return fit


def _every(rng: np.random.Generator, num_classes: int) -> np.ndarray:
    del rng
    return np.arange(num_classes)
