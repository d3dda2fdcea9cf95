"""The classifier of a victim's owner, as variables of an endpoint."""

import numpy as np

from ssl_extract.evaluation.probe import Probe


def variables_of(probe: Probe) -> dict[str, np.ndarray]:
    """Returns a fitted probe as the variables of the network 'classifier'."""
    return {name: getattr(probe, name) for name in ('mean', 'scale', 'weights', 'bias')}
