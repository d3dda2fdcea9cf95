"""Overlap of image sets: what must not be queried and tested both."""

import numpy as np

from ssl_extract.data.sets import Dataset, hashes
from ssl_extract.errors import UserError


def check_disjoint(queries: Dataset, test: Dataset) -> None:
    """Stops an evaluation on images that the surrogate was trained on.

    Raises:
        UserError: an image of `test` is among `queries`, or their sizes differ, so that nothing
            can be said.
    """
    if queries.inputs.shape[1:] != test.inputs.shape[1:]:
        raise UserError(
            f'cannot compare {queries.name}, images {queries.inputs.shape[1:]}, with {test.name}, '
            f'images {test.inputs.shape[1:]}: load both with the same size'
        )
    shared = int(np.isin(hashes(test.inputs), hashes(queries.inputs)).sum())
    if shared:
        raise UserError(
            f'{shared} of the {len(test.inputs)} images of {test.name} are among the queries '
            f'{queries.name}: query another split or slice'
        )
