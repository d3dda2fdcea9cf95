"""The speech embedding of openWakeWord as a plain function, for `victim.source`.

    pip install onnxruntime
    pip install --no-deps openwakeword==0.4.0
    victim.source = 'function("experiments.pretrained.openwakeword:encode", dim=96)'

The package holds Google's speech embedding (Lin et al. 2020, https://arxiv.org/abs/2002.01322) and
its mel spectrogram as two ONNX files (2 MB); nothing is downloaded later. The network was trained
to spot keywords: it is a supervised encoder. It looks at 0.79 seconds, the first of a clip, with
silence behind a shorter one. Weights: Apache-2.0.

Clips have 16,000 samples a second: one core answers about 240 clips a second. Answers are kept in
runs/openwakeword, below the working directory, and a clip is computed once for all runs of all
experiments. From the command line, the module prints the accuracy of 20 nearest neighbors on a
folder with a folder of clips for each class, which vote on a fifth of the clips:

    python -m experiments.pretrained.openwakeword FOLDER
"""

import functools
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssl_extract.errors import UserError

from .installed import find, knn
from .kept import answered

DIM, SAMPLES = 96, 12_640
BATCH = 256  # clips whose answers are one file
FOLDER = Path('runs/openwakeword')
_PACKAGE = ('openwakeword==0.4.0', 'openwakeword')
_MEL = (
    'resources/models/melspectrogram.onnx',
    'ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f',
)
_EMBEDDING = (
    'resources/models/embedding_model.onnx',
    'ba754db3cd768a524c655ea90655ee5e6055a43b8dfd29366a11e93716ae9e51',
)


def encode(inputs: np.ndarray) -> np.ndarray:
    """Answers decoded clips [n, T] of 16 kHz, -1 behind a clip, with float32 [n, 96]."""
    heard = np.zeros((len(inputs), SAMPLES), np.float32)
    first = np.asarray(inputs, np.float32)[:, :SAMPLES]
    heard[:, : first.shape[1]] = np.where(first == -1, 0, np.rint(first * 2**15))
    names = [hashlib.blake2b(clip.tobytes(), digest_size=16).hexdigest() for clip in heard]
    represent = lambda rows: np.stack([_network()(heard[row]) for row in rows])  # noqa: E731
    return answered(FOLDER, names, represent, BATCH)


@functools.cache
def _network() -> Callable[[np.ndarray], np.ndarray]:
    """Loads both parts of the network, on one thread."""
    paths = find(*_PACKAGE, *_MEL), find(*_PACKAGE, *_EMBEDDING)
    try:
        import onnxruntime
    except ImportError:
        raise UserError('openwakeword needs onnxruntime: pip install onnxruntime') from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    mel, embedding = (
        onnxruntime.InferenceSession(str(path), options, ['CPUExecutionProvider']) for path in paths
    )

    def represent(clip: np.ndarray) -> np.ndarray:
        frames = mel.run(None, {'input': clip[None]})[0].squeeze() / 10 + 2  # [76, 32]
        return embedding.run(None, {'input_1': frames[None, :, :, None]})[0].ravel()

    return represent


def main() -> None:
    """Measures the function on a folder."""
    accuracy = knn(encode, f'speech_folder({sys.argv[1]!r}, seconds=1.0)')
    print(f'20 nearest neighbors: {accuracy:.3f}')


if __name__ == '__main__':
    main()
