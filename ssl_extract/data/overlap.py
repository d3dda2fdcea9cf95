"""Overlap of data sets by content, and its refusal."""

import numpy as np

from ssl_extract.data.sets import Dataset, hashes
from ssl_extract.errors import UserError


def check_disjoint(queries: Dataset, test: Dataset) -> None:
    """Refuses to evaluate on inputs that the surrogate was trained on.

    Raises:
        UserError: an input of `test` is among `queries`, or they cannot be compared.
    """
    count = count_shared(queries, test)
    if count:
        raise UserError(
            f'{count} of the {len(test.inputs)} inputs of {test.name} are among the queries '
            f'{queries.name}: query another split or slice'
        )


def check_train_test(train: Dataset, test: Dataset) -> None:
    """Refuses a task whose classifiers would be tested on what they were fitted on.

    Raises:
        UserError: an input of `test` is among `train`, or they cannot be compared.
    """
    count = count_shared(train, test)
    if count:
        raise UserError(
            f'{count} of the {len(test.inputs)} inputs of {test.name} are among those of '
            f'{train.name}: a task is trained and tested on splits or slices that share none'
        )


def count_shared(one: Dataset, other: Dataset) -> int:
    """Returns how many inputs of `other` are, by content, among those of `one`.

    >>> count_shared(Dataset(np.array([[1.0], [2.0]])), Dataset(np.array([[2.0], [3.0], [2.0]])))
    2

    Raises:
        UserError: the inputs differ in shape or number type, so that nothing can be said.
    """
    kinds = [(dataset.inputs.shape[1:], dataset.inputs.dtype) for dataset in (one, other)]
    if kinds[0] != kinds[1]:
        shown = [f'inputs {dtype} {list(shape)}' for shape, dtype in kinds]
        raise UserError(
            f'cannot compare {one.name}, {shown[0]}, with {other.name}, {shown[1]}: load both with '
            'the same size and number type'
        )
    return int(np.isin(hashes(other.inputs), hashes(one.inputs)).sum())
