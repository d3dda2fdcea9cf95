"""Arrays by name in the files of PyTorch and safetensors.

A `.safetensors` file needs no PyTorch. Any other file is read by `torch.load` with
`weights_only=True`, which unpickles arrays and plain Python values and runs no code of the file.
"""

import argparse
import pickle
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.runtime import files

SUFFIX = '.safetensors'
INSTALL = "pip install 'ssl_extract[torch]'"


def read(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of a file as float32, by name.

    Dicts within dicts give names with dots: `{'state_dict': {'conv1.weight': ...}}` gives
    'state_dict.conv1.weight'. Arrays of whole numbers, such as counters, are left out.

    Args:
        path: a file on a local disk: `.safetensors`, or what `torch.save` wrote.

    Raises:
        UserError: there is no such file, PyTorch is not installed, or the file holds code.
        DamagedError: the file cannot be read.
    """
    path = files.absolute(path)
    if not files.is_local(path):
        raise UserError(f'{path}: copy it to a local disk, and write its path there')
    if not path.is_file():
        raise UserError(f'{path} is not there, or no file: write the path of a file of weights')
    return _of_safetensors(path) if path.suffix == SUFFIX else _of_torch(path)


def _of_safetensors(path: epath.Path) -> dict[str, np.ndarray]:
    arrays = {}
    # By JAX, for NumPy alone has no bfloat16. What float32 does not hold becomes infinite.
    with (
        files.reading(path),
        np.errstate(over='ignore'),
        safetensors.safe_open(path, 'flax') as file,
    ):
        for name in file.keys():  # noqa: SIM118
            if file.get_slice(name).get_dtype().startswith(('F', 'BF')):
                arrays[name] = np.asarray(file.get_tensor(name), np.float32)
    return arrays


def _of_torch(path: epath.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError(
            f'{path}: PyTorch reads it, and is not installed: {INSTALL}, or save the weights as '
            f'{SUFFIX} where they come from'
        ) from None
    code = []
    with files.reading(path), path.open('rb') as file:
        try:
            # Public files hold the arguments of their training in a Namespace, which runs no code.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location='cpu', weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError) as error:
            code = re.findall(r'GLOBAL ([\w.]+)', str(error))
            if not code:
                raise ValueError('it is damaged, or not what torch.save writes') from error
    if code:
        raise UserError(
            f'{path}: it holds {code[0]}, which is no plain value and could run code: save the '
            'weights alone where it comes from, torch.save(model.state_dict(), "weights.pth")'
        )
    return {
        name: tensor.detach().float().numpy()
        for name, tensor in flat(content)
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
    }


def flat(tree: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Yields the leaves of dicts within dicts, with the keys that lead to them."""
    if not isinstance(tree, Mapping):
        yield name, tree
        return
    for key, value in tree.items():
        if isinstance(key, str):  # an optimizer numbers its arrays
            yield from flat(value, f'{name}.{key}' if name else key)
