"""Overlap of data sets by content, and its refusal."""

import numpy as np

from ssl_extract.data.sets import Dataset, hashes
from ssl_extract.errors import UserError


def check_disjoint(queries: Dataset, test: Dataset) -> None:
    """Checks that no input of a test set is among the queries.

    Raises:
        UserError: an input of `test` is among `queries`, or the sets cannot be compared.
    """
    count = count_shared(queries, test)
    if count:
        raise UserError(
            f'{count} of the {len(test.inputs)} inputs of {test.name} are among the queries '
            f'{queries.name}: query another split or slice'
        )


def check_train_test(train: Dataset, test: Dataset) -> None:
    """Checks that no test input of a task is among the training inputs.

    Raises:
        UserError: an input of `test` is among `train`, or the sets cannot be compared.
    """
    count = count_shared(train, test)
    if count:
        raise UserError(
            f'{count} of the {len(test.inputs)} inputs of {test.name} are among those of '
            f'{train.name}: a task is trained and tested on splits or slices that share none'
        )


def count_shared(first: Dataset, second: Dataset) -> int:
    """Counts the inputs of `second` that are, by content, among those of `first`.

    >>> count_shared(Dataset(np.array([[1.0], [2.0]])), Dataset(np.array([[2.0], [3.0], [2.0]])))
    2

    Raises:
        UserError: the inputs differ in shape or number type.
    """
    kinds = [(dataset.inputs.shape[1:], dataset.inputs.dtype) for dataset in (first, second)]
    if kinds[0] != kinds[1]:
        shown = [f'inputs {dtype} {list(shape)}' for shape, dtype in kinds]
        raise UserError(
            f'cannot compare {first.name}, {shown[0]}, with {second.name}, {shown[1]}: load both '
            'with the same size and number type'
        )
    return int(np.isin(hashes(second.inputs), hashes(first.inputs)).sum())
