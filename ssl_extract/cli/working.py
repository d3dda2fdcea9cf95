"""Worker processes of `--workers` and `--slurm`.

`sweeping` starts `python -m ssl_extract.cli.working` with the words of the user's own command.
"""

import sys
import time
import traceback

from ssl_extract.cli import arguments, failures, noise, running, signals
from ssl_extract.pipeline import provenance, validate
from ssl_extract.pipeline import run as pipeline
from ssl_extract.runtime import files, programs
from ssl_extract.sweeps import worker


def main(argv: list[str]) -> int:
    """Computes the runs that the parent process asks for.

    Args:
        argv: the user's command: the program's name and flags.

    Returns:
        The exit code.
    """
    noise.reduce_logs()
    noise.reduce_prints()
    signals.end_on_signals(arguments.shown_command(argv))
    return worker.serve(lambda: _set_up(argv), _explain)


def _set_up(argv: list[str]) -> worker.Runner:
    """Reads the experiment; each run is validated when its turn comes."""
    request = running.read('run', argv)
    running.check_devices()
    programs.keep()
    folder = files.absolute(request.workdir)
    runs = pipeline.make_runs(request.values.config, folder, request.fixed)
    command = arguments.shown_command(argv)
    described = {'title': request.title, **provenance.describe(command)}
    due = 0.0

    def compute(number: int, expected: str) -> None:
        nonlocal due
        place = f'runs[{number}]: '
        validate.validate(runs[number], place)
        pipeline.finish(runs[number], described, place.strip(), expected)
        if time.monotonic() > due:
            due = pipeline.write_results_timed(folder)

    return worker.Runner(folder, compute)


def _explain(error: Exception) -> str:
    """Writes an error in one line; of a bug the traceback is printed."""
    line = failures.explain(error)
    if line is None:
        traceback.print_exception(error)
        return ' '.join(f'error: {type(error).__name__}: {error}'.split())
    noise.show_traceback(error)
    return line


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
