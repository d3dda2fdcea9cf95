"""WordLlama as a plain function on tokens, for `victim.source`.

    pip install --no-deps wordllama==0.4.0.post1
    victim.source = 'function("experiments.pretrained.wordllama:encode", dim=256)'

The package holds the weights (16 MB) and the tokenizer; nothing is downloaded later. A sentence is
the mean of the vectors of its tokens, scaled to norm 1. The vectors are those of Llama 2, projected
to 256 numbers by training on pairs of sentences. Code and weights: MIT.

Texts are read with the tokenizer of the package, whose path `tokenizer()` gives, and without the
token for the beginning that Llama 2 adds:

    data.name = f'text_lines("texts.csv", "{tokenizer()}", length=300, special_tokens=False)'

An answer takes less time than its place on a disk, and none is kept: one core answers thousands of
texts a second. From the command line, the module answers the texts of a file and prints the
accuracy of 20 nearest neighbors, which vote on a fifth of the texts:

    python -m experiments.pretrained.wordllama ag_news_test.csv
"""

import functools
import sys

import numpy as np
from safetensors.numpy import load_file

from .installed import find, knn, texts_of

DIM, VOCABULARY = 256, 32_000
_PACKAGE = ('wordllama==0.4.0.post1', 'wordllama')
_WEIGHTS = (
    'weights/l2_supercat_256.safetensors',
    '64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5',
)
_TOKENIZER = (
    'tokenizers/l2_supercat_tokenizer_config.json',
    '93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68',
)


def encode(inputs: np.ndarray) -> np.ndarray:
    """Answers decoded tokens [n, T], -1 behind a text, with float32 [n, 256] of norm 1."""
    means = np.stack([_table()[text].mean(axis=0) for text in texts_of(inputs, VOCABULARY)])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def tokenizer() -> str:
    """Returns the path of the tokenizer."""
    return str(find(*_PACKAGE, *_TOKENIZER))


@functools.cache
def _table() -> np.ndarray:
    """Loads the vectors of all tokens, float32 [32000, 256]."""
    return load_file(find(*_PACKAGE, *_WEIGHTS))['embedding.weight'].astype(np.float32)


def main() -> None:
    """Measures the function on the texts of a file."""
    options = 'length=512, special_tokens=False'
    accuracy = knn(encode, f'text_lines({sys.argv[1]!r}, {tokenizer()!r}, {options})')
    print(f'20 nearest neighbors: {accuracy:.3f}')


if __name__ == '__main__':
    main()
