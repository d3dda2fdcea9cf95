"""Fields of a config on the command line, `--config.a.b=c`."""

import re

import ml_collections
from absl import flags
from ml_collections import config_flags

from ssl_extract.cli import arguments
from ssl_extract.config import check_field

_OVERRIDE = re.compile(r'--?(?:no)?config\.([^=]*)')


def define(values: flags.FlagValues, config: ml_collections.ConfigDict, words: list[str]) -> None:
    """Lets `--config.a.b=c` set a field of an experiment's config.

    Args:
        values: the flags; the flag `config` becomes the config itself.
        config: the experiment's config.
        words: the arguments of the command that are not read yet.

    Raises:
        UserError: there is no such field.
    """
    for word in words:
        if override := _OVERRIDE.match(word):
            check_field(config, override[1], f'--config.{override[1]}')
    delattr(values, 'config')
    with arguments.read_errors():
        config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=words)
