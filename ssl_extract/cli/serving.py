"""The commands `serve` and `tokens`: a defended victim as an HTTP service."""

import os
import sys

from absl import flags
from etils import epath

from ssl_extract.cli import arguments
from ssl_extract.errors import UserError
from ssl_extract.pipeline.modules import import_modules
from ssl_extract.runtime import files, parallel, programs
from ssl_extract.victims.model import Victim
from ssl_extract.victims.sources import SOURCES


def main(argv: list[str]) -> int:
    """Serves the victim that the flags describe until the process is ended.

    Args:
        argv: the program's name and flags.

    Returns:
        The exit code 0.

    Raises:
        UserError: a flag is wrong, a library of the extra is missing, or the port is taken.
    """
    values = arguments.new_values('serve')
    if words := arguments.parse(values, argv):
        raise UserError(f'serve: unexpected {words[0]!r}: write --victim=... and --tokens=...')
    serve, server, tokens = _libraries()
    for name in ('victim', 'tokens'):
        if not values[name].value:
            raise UserError(f'serve: write --{name}=...')
    import_modules(tuple(values.modules))
    programs.keep()
    limits = serve.Limits(values.max_batch, values.requests_per_minute)
    opened = serve.open_service(
        _victim_of(values.victim),
        values.defense,
        tokens.read(values.tokens),
        values.state,
        _shape_of(values),
    )
    with opened as service, server.bind(values.host, values.port) as bound:
        if not server.is_loopback(bound):
            print(
                'note: the service can be reached from other machines, and tokens travel in the '
                'clear: put a server with TLS before it',
                file=sys.stderr,
            )
        print(f'serving {len(service.accounts)} accounts: {server.url_of(bound)}', flush=True)
        server.make_server(serve.make_app(service, limits)).run(sockets=[bound])
    return 0


def make_tokens(argv: list[str]) -> int:
    """Adds accounts to a tokens file and prints their tokens.

    Args:
        argv: the program's name, the file, the accounts' names and flags.

    Returns:
        The exit code 0.

    Raises:
        UserError: a flag or a name is wrong, or a name is taken.
    """
    values = arguments.new_values('tokens')
    words = arguments.parse(values, argv)
    if len(words) < 2:
        raise UserError('tokens: write a file and names: tokens tokens.json alice bob --budget=...')
    _, _, tokens = _libraries()
    path, *names = words
    for name, token in tokens.add(path, names, values.budget).items():
        print(f'{name}\t{token}')
    return 0


def _libraries() -> tuple:
    """Imports the rooms that need the libraries of the extra."""
    try:
        from ssl_extract import serve
        from ssl_extract.serve import server, tokens
    except ModuleNotFoundError as error:
        raise UserError(f"serve needs {error.name}: pip install 'ssl_extract[serve]'") from error
    return serve, server, tokens


def _victim_of(text: str) -> Victim:
    """Returns the victim of a source, or the only victim of a workdir."""
    folder = files.absolute(text)
    if os.path.isdir(folder) or ('(' not in text and folder.is_dir()):  # the second of a bucket
        text = _source_of(folder)
    load = SOURCES.make(text)
    if load is None:
        raise UserError(
            f'--victim={text}: nothing is trained here; write a source of a finished victim, or '
            'the workdir that trained it'
        )
    return load(parallel.data_mesh(1))


def _source_of(workdir: epath.Path) -> str:
    folders = [path.parent for path in files.find(workdir, 'victim/*/meta.json')]
    sources = [f'checkpoint(path={os.fspath(folder)!r})' for folder in folders]
    if len(sources) != 1:
        which = f'write one of {", ".join(sources)}' if sources else 'write a source or a workdir'
        raise UserError(f'--victim={workdir}: it holds {len(sources)} finished victims; {which}')
    return sources[0]


def _shape_of(values: flags.FlagValues) -> tuple[int, ...] | None:
    try:
        shape = tuple(map(int, values.input_shape))
    except ValueError:
        shape = (0,)
    if any(size < 1 for size in shape):
        raise UserError(
            f'--input_shape={",".join(values.input_shape)}: write whole numbers, as in 32,32,3'
        )
    return shape or None
