"""The command line of `launch.py` and `ssl-extract`."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import ssl_extract
from ssl_extract.cli import arguments, failures, noise, signals, streams
from ssl_extract.errors import UserError
from ssl_extract.runtime import hosts

_HOMES = {  # imported when they are called: JAX takes seconds
    'export': 'ssl_extract.cli.exporting:main',
    'list': 'ssl_extract.cli.catalog:main',
    'report': 'ssl_extract.cli.merging:main',
    'run': 'ssl_extract.cli.running:main',
    'score': 'ssl_extract.cli.scoring:main',
    'serve': 'ssl_extract.cli.serving:main',
    'store': 'ssl_extract.cli.storing:main',
    'tokens': 'ssl_extract.cli.serving:make_tokens',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the program's name, a command and its flags; by default those of this process, which
            signals and errors then end at once: see `signals.end_on_signals`.

    Returns:
        The exit code: 0; 1 where a run of `--workers` or `--slurm` failed; 2 after an error, which
        is told in one line; 130 after an interrupt.
    """
    words = list(sys.argv if argv is None else argv)
    streams.open_closed()
    noise.reduce_logs()
    if argv is not None:
        return _run(words)
    signals.end_on_signals(arguments.shown_command(words))
    noise.reduce_prints()
    if exit_code := _run(words):
        os._exit(exit_code)  # without what threads and destructors of libraries still say
    return 0


def _run(words: list[str]) -> int:
    try:
        exit_code = _dispatch(words)
        sys.stdout.flush()
        return exit_code
    except KeyboardInterrupt:
        streams.tell(signals.line(arguments.shown_command(words)))
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and streams.is_read_enough():
            return 0
        line = failures.explain(error)
        if line is None:
            if hosts.number() == 1:
                raise
            streams.tell(hosts.named(''.join(traceback.format_exception(error))))
            return 1  # to end now: the interpreter would wait for the other processes first
        noise.show_traceback(error)
        streams.tell(hosts.named(line))
        return 2


def _dispatch(argv: list[str]) -> int:
    program, words = argv[0], argv[1:]
    for word in words:
        if word != word.encode(errors='replace').decode():
            raise UserError(f'{word!r} is not UTF-8: rename the file, or set PYTHONUTF8=1')
    if '--version' in words:
        print(f'ssl-extract {ssl_extract.__version__}')
        return 0
    if {'--help', '-h', '-help'} & {*words}:
        print(arguments.help_text())
        return 0
    named = bool(words) and not words[0].startswith('-')
    name = words[0] if named else 'run'
    if name not in arguments.COMMANDS:
        raise UserError(
            f'{name!r} is no command: write {", ".join(arguments.COMMANDS)}, or --config=...'
        )
    module, _, function = _HOMES[name].partition(':')
    command = getattr(importlib.import_module(module), function)
    return command([program, *words[named:]])
