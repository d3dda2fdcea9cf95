"""Kinds of legitimate users, and the classifiers that they fit.

A new kind of user is a factory that returns a `User`, under `@users.register('its_name')`. A new
classifier is a factory that returns `fit(features, labels, num_classes) -> Predict`, under
`@users.register_model('its_name')`.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np

from ssl_extract import augment
from ssl_extract.errors import UserError
from ssl_extract.evaluation.features import check_features
from ssl_extract.evaluation.probe import predict
from ssl_extract.evaluation.probes import PROBES
from ssl_extract.ranges import Count, NotNegative, Positive, Range, Whole, Width
from ssl_extract.registry import Registry

USERS = Registry('legitimate user')
MODELS = Registry("legitimate user's model")
register, register_model = USERS.register, MODELS.register

Predict = Callable[[np.ndarray], np.ndarray]  # features [N, D] -> classes [N]


class User(NamedTuple):
    """The queries of a kind of user.

    Attributes:
        classes: `(rng, num_classes) -> int[K]`, the classes of the task that the user works with,
            counted from 0 among those of the task that have training inputs.
        views: number of augmented views to ask of each training input of the user; 0 asks the input
            as it is. Test inputs are always asked as they are.
        augmentation: of a view; see `ssl_extract.augment`. '' is that of the victim's pretraining.
    """

    classes: Callable[[np.random.Generator, int], np.ndarray]
    views: int = 0
    augmentation: str = ''


@register('broad')
def broad() -> User:
    """Works with inputs of all classes.

    >>> broad().classes(np.random.default_rng(0), 3).tolist()
    [0, 1, 2]
    """
    return User(_all_classes)


@register('narrow')
def narrow(classes: Annotated[int, Range(2, 2**16)] = 3) -> User:
    """Works with inputs of a few classes, drawn from the seed; tests use the same classes.

    >>> len(narrow(classes=3).classes(np.random.default_rng(0), 10))
    3

    Args:
        classes: number of classes.

    Raises:
        UserError: `classes` is not a whole number of at least 2, or more than the task has.
    """

    def draw(rng: np.random.Generator, num_classes: int) -> np.ndarray:
        if classes > num_classes:
            raise UserError(f'classes={classes}: the first task has {num_classes}; write fewer')
        return rng.choice(num_classes, classes, replace=False)

    return User(draw)


@register('augmenting')
def augmenting(views: Annotated[int, Range(1, 1000)] = 2, augmentation: str = '') -> User:
    """Works with images of all classes, and asks and trains on `views` augmented views of each.

    A victim keeps together only those views that its pretraining drew: mirrored digits, say, lie
    elsewhere. So a view is drawn as in the victim's pretraining, as its documentation would say.

    >>> augmenting(views=2, augmentation='flip').views
    2

    Args:
        views: number of views of each training image.
        augmentation: of a view, a spec of `ssl_extract.augment`; '' is `victim.augmentation`.

    Raises:
        UserError: `views` is not a whole number of at least 1, or the augmentation is unknown.
    """
    augment.make(augmentation)
    return User(_all_classes, views, augmentation)


@register_model('probe')
def linear(probe: str = 'lbfgs') -> Callable[..., Predict]:
    """Fits the linear probe of the evaluation of encoders.

    >>> fit = linear('sgd(epochs=1)')
    >>> callable(fit)
    True

    Args:
        probe: a spec of `ssl_extract.evaluation.PROBES`.
    """

    def fit(features: np.ndarray, labels: np.ndarray, num_classes: int) -> Predict:
        return functools.partial(predict, PROBES.make(probe)(features, labels, num_classes))

    return fit


@register_model('mlp')
def mlp(
    width: Width = 512,
    epochs: Count = 100,
    batch_size: Count = 64,
    learning_rate: Positive = 1e-3,
    weight_decay: NotNegative = 1e-4,
    seed: Whole = 0,
) -> Callable[..., Predict]:
    """Fits two layers with ReLU by Adam with decay in the gradient, as arXiv 2205.07890 does.

    The biases do not decay, while they do in the paper's code. The initialization is that of
    scikit-learn (Glorot).

    >>> fit = mlp(width=4, epochs=1)
    >>> fit(np.eye(2), np.array([0, 1]), 2)(np.eye(2)).shape
    (2,)

    Args:
        width: of the hidden layer.
        epochs: over the user's answers.
        batch_size: answers in a step; at most all of them.
        learning_rate: of Adam.
        weight_decay: factor of the weights in the gradient.
        seed: of initialization and order.

    Raises:
        UserError: an argument has a wrong value.
    """

    def fit(features: np.ndarray, labels: np.ndarray, num_classes: int) -> Predict:
        from sklearn.exceptions import ConvergenceWarning  # takes a second to import
        from sklearn.neural_network import MLPClassifier

        del num_classes  # read from the labels
        check_features(features)
        size = min(batch_size, len(labels))
        network = MLPClassifier(
            (width,),
            alpha=weight_decay * size,  # scikit-learn divides the penalty by the batch
            batch_size=size,
            learning_rate_init=learning_rate,
            max_iter=epochs,
            n_iter_no_change=epochs,  # all epochs, whether the loss still falls or not
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', ConvergenceWarning)
            warnings.simplefilter('ignore', RuntimeWarning)  # of an overflow, which is checked
            try:
                return network.fit(features, labels).predict
            except ValueError as error:
                raise UserError(
                    f'legitimate.model: mlp(learning_rate={learning_rate}) has diverged: lower it '
                    f'({error})'
                ) from error

    return fit


def _all_classes(rng: np.random.Generator, num_classes: int) -> np.ndarray:
    del rng
    return np.arange(num_classes)
