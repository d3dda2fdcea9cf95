"""The registry of data sets, and `load`.

    digits = load('digits', 'train[:80%]', size=16)
    photos = load('folder(path="photos")', 'all[:80%]', size=32)
    vectors = load('npz(path="vectors.npz")', 'train')
    cifar = load('cifar10:3.0.2', 'test', data_dir='/data/tfds')

A new set is a factory with a parameter `split`, and with `size`, `data_dir` or `cache_dir` where it
needs them; `select` resolves the split:

    @data.register('blobs')
    def blobs(std: float = 1.0, *, split: str) -> data.Dataset:
        rows = data.select(split, {'train': np.arange(800), 'test': np.arange(800, 1000)})
        ...
        return data.Dataset(vectors[rows], labels[rows], num_classes=3)
"""

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any

from ssl_extract.checks import check
from ssl_extract.data import tfds as tfds_sets
from ssl_extract.data.sets import Dataset, checked
from ssl_extract.errors import UserError
from ssl_extract.ranges import Range
from ssl_extract.registry import Registry, parse_call

_SPEC = re.compile(r'\s*([^()\s]*)\s*(\(.*\))?\s*', re.DOTALL)


def _check_split(name: str, factory: Callable[..., Dataset]) -> None:
    """Checks that a factory has the parameter `split`."""
    if 'split' not in inspect.signature(factory).parameters:
        raise UserError(f'data set {name!r}: its factory needs a parameter `split`')


Side = Annotated[int, Range(1, 2**10)]  # of images, in pixels
# The trait of a data set.
# rate: the sampling rate of its waveforms, in Hz; 0 where it has none, or it is not known.
DATASETS = Registry('data set', check=_check_split, rate=0)
register = DATASETS.register


def load(
    spec: str, split: str, *, size: int | None = None, data_dir: str = '', cache_dir: str = ''
) -> Dataset:
    """Loads a slice of a data set.

    Args:
        spec: a registered set with arguments, such as 'digits', 'noise' (50,000 images of random
            pixels, 'train', no labels), 'folder(path="photos")' or 'npz(path="vectors.npz")'; any
            other name is an image-classification set of TFDS, such as 'cifar10', 'cifar10:3.0.2' or
            'set/config', decoded once, without TensorFlow.
        split: in the language of TFDS: 'train', 'train[:20000]', 'train[10%:20%]', 'train+test'.
        size: side in pixels, to which the central square of each image is resized (bilinear,
            antialiased). None keeps the images as they are, and draws noise at 32.
        data_dir: the folder of the prepared TFDS sets; '' for the default of TFDS.
        cache_dir: the folder of decoded images; '' for ~/.cache/ssl_extract.

    >>> load('digits', 'train[:20%]').inputs.shape
    (259, 8, 8, 3)

    Raises:
        UserError: the set does not exist or cannot be read, an argument does not fit, the split or
            slice does not exist or is empty, the set has no input, or images differ in size and
            `size` is None.
    """
    check('size', size, Side | None)
    head, args, kwargs = parse_spec(spec)
    choices = {'split': split, 'size': size, 'data_dir': data_dir, 'cache_dir': cache_dir}
    if head in DATASETS:
        _check_apart(spec, written(head, args, kwargs), choices)
        dataset = DATASETS.make(spec, **choices)
        if not isinstance(dataset, Dataset):
            raise UserError(f'data set {spec!r}: its factory gives {type(dataset)}, not a Dataset')
    elif args or kwargs:
        raise UserError(
            f'unknown data set {head!r}: known are {", ".join(sorted(DATASETS))}, and the names '
            'of TFDS, which take no arguments'
        )
    else:
        dataset = Dataset(*tfds_sets.load(head, split, size, data_dir, cache_dir))
    dataset = checked(dataset._replace(name=f'{spec.strip()}/{split}'))
    shape = dataset.inputs.shape[1:]
    if size is not None and shape[:2] != (size, size):
        raise UserError(
            f'{dataset.name} has inputs of {list(shape)}, which size={size} does not change: leave '
            'size out'
        )
    return dataset


def rate_of(spec: str) -> int:
    """Returns the sampling rate of a set of waveforms, in Hz; 0 where it is not known.

    >>> rate_of('speech_npz(path="clips.npz", rate=8000)'), rate_of('digits')
    (8000, 0)
    """
    return DATASETS.traits(spec).rate if parse_spec(spec)[0] in DATASETS else 0


def parse_spec(spec: str, kind: str = 'data set') -> tuple[str, tuple, dict[str, Any]]:
    """Parses a description of a data set to (name, args, kwargs).

    The name may be a TFDS name with version and configuration.

    >>> parse_spec('cifar10:3.0.2(train="train[:100]")')
    ('cifar10:3.0.2', (), {'train': 'train[:100]'})

    Raises:
        UserError: the description does not parse.
    """
    match = _SPEC.fullmatch(spec) if isinstance(spec, str) else None
    if match is None or not match.group(1):
        raise UserError(
            f"cannot read {kind} {spec!r}: write a name, such as 'cifar10:3.0.2', or "
            'name(arg=1, other="x")'
        )
    head, call = match.groups()
    if call is None:
        return head, (), {}
    name = head if head.isidentifier() else re.sub(r'\W', '_', f'_{head}')  # for the parser only
    return head, *parse_call(name + call, kind)[1:]


def render_spec(head: str, args: tuple, kwargs: dict[str, Any]) -> str:
    """Writes a description that `parse_spec` reads.

    >>> render_spec('folder', (), {'path': 'photos'})
    "folder(path='photos')"
    """
    arguments = [*map(repr, args), *(f'{key}={value!r}' for key, value in kwargs.items())]
    return f'{head}({", ".join(arguments)})' if arguments else head


def written(head: str, args: tuple, kwargs: dict[str, Any]) -> set[str]:
    """Returns the parameters of a registered set for which a description has a value."""
    parameters = list(inspect.signature(DATASETS[head]).parameters)
    return {*parameters[: len(args)], *kwargs}


def _check_apart(spec: str, names: set[str], choices: dict[str, Any]) -> None:
    """Refuses a split or size within a description, which would win silently over the argument."""
    both = sorted(names & choices.keys())
    if both:
        raise UserError(f'data set {spec!r}: {both[0]} is not written here but given beside it')
