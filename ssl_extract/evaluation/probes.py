"""The registry of linear probes.

A new probe is a factory of `fit(features, labels, num_classes) -> Probe`:

    @evaluation.register_probe('my_probe')
    def my_probe(ridge: float = 1.0) -> Callable[..., Probe]: ...
"""

import functools
from collections.abc import Callable

from ssl_extract.evaluation.probe import L2_GRID, Probe, fit_probe
from ssl_extract.evaluation.probe_sgd import fit_probe_sgd
from ssl_extract.ranges import Count, NotNegative, Positive
from ssl_extract.registry import Registry

PROBES = Registry('probe')
register_probe = PROBES.register


@register_probe('lbfgs')
def lbfgs(l2_grid: tuple[Positive, ...] = L2_GRID) -> Callable[..., Probe]:
    """Fits softmax regression to the optimum; see `fit_probe`.

    >>> fit = lbfgs(l2_grid=(0.01,))
    >>> callable(fit)
    True

    Args:
        l2_grid: penalties to choose from.
    """
    return functools.partial(fit_probe, l2_grid=l2_grid)


@register_probe('sgd')
def sgd(
    optimizer: str = 'adam',
    learning_rate: Positive = 1e-4,
    weight_decay: NotNegative = 8e-4,
    epochs: Count = 100,
    batch_size: Count = 256,
) -> Callable[..., Probe]:
    """Fits by the paper's recipe; see `fit_probe_sgd` for the arguments.

    >>> fit = sgd(epochs=10)
    >>> callable(fit)
    True
    """
    return functools.partial(
        fit_probe_sgd,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        batch_size=batch_size,
    )
