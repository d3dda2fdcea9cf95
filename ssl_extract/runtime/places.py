"""Places of the files that come with the package."""

import pathlib


def experiments() -> pathlib.Path:
    """Returns the folder of the experiments that come with the package.

    An installed package holds the folder; in a checkout the folder lies beside the package.
    """
    package = pathlib.Path(__file__).parents[1]
    installed = package / 'experiments'
    return installed if installed.is_dir() else package.parent / 'experiments'
