"""A stolen encoder in another program: one process steals and leaves, another loads and uses it.

Prints the accuracy of scikit-learn's logistic regression on the encoder's representations.
"""

import pathlib
import tempfile

import numpy as np
import sklearn.linear_model

import ssl_extract


def steal(folder: pathlib.Path, images: np.ndarray) -> None:
    """The first program: it needs the oracle."""
    victim = lambda images: images.reshape(len(images), -1)[:, ::12]  # noqa: E731
    answers = ssl_extract.collect(
        ssl_extract.make_oracle(victim, budget=len(images)), images, folder=folder / 'account'
    )
    ssl_extract.steal(
        answers,
        encoder='resnet18(stem="patch", width=16, stages=(1,))',
        epochs=20,
        learning_rate=5e-3,
        folder=folder / 'stolen',
    )


def use(folder: pathlib.Path, digits: ssl_extract.data.Dataset) -> float:
    """The second program: it needs the folder only."""
    encoder = ssl_extract.load(folder / 'stolen')
    features = np.asarray(encoder.apply(digits.inputs / np.float32(255)))
    classifier = sklearn.linear_model.LogisticRegression(max_iter=1000)
    classifier.fit(features[:300], digits.labels[:300])
    return classifier.score(features[300:], digits.labels[300:])


def main() -> None:
    digits = ssl_extract.data.load('digits', 'train[:600]')
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        steal(folder, digits.inputs[:256])
        print(f'accuracy: {use(folder, digits):.2f}')


if __name__ == '__main__':
    main()
