"""The registry of linear probes.

A probe of one's own is a factory of `fit(features, labels, num_classes) -> Probe`:

    @evaluation.register_probe('mine')
    def mine(ridge: float = 1.0) -> Callable[..., Probe]: ...
"""

import functools
from collections.abc import Callable

from ssl_extract.evaluation.probe import L2_GRID, Probe, fit_probe
from ssl_extract.evaluation.probe_sgd import fit_probe_sgd
from ssl_extract.registry import Registry

PROBES = Registry('probe')
register_probe = PROBES.register


@register_probe('lbfgs')
def lbfgs(l2_grid: tuple[float, ...] = L2_GRID) -> Callable[..., Probe]:
    """The optimum of softmax regression; `l2_grid` holds the penalties to choose from."""
    return functools.partial(fit_probe, l2_grid=l2_grid)


@register_probe('sgd')
def sgd(
    optimizer: str = 'adam',
    learning_rate: float = 1e-4,
    weight_decay: float = 8e-4,
    epochs: int = 100,
    batch_size: int = 256,
) -> Callable[..., Probe]:
    """The paper's own recipe; see `fit_probe_sgd`."""
    return functools.partial(
        fit_probe_sgd,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        batch_size=batch_size,
    )
