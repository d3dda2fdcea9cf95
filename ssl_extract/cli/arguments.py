"""The flags and the help text of each command."""

import contextlib
import shlex
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from absl import flags

import ssl_extract
from ssl_extract.errors import UserError

_CLOSING = (
    'The word run may be left out; alone, ssl-extract runs the quickstart. In a checkout, python '
    'launch.py is the same command. --config.a.b=c sets a field of the config. --verbosity=0 shows '
    'what libraries log, --verbosity=1 also the traceback of an error.'
)
_PLAINLY = {
    'invalid literal for int() with base 10:': 'write a whole number instead of',
    "('Non-boolean argument to boolean flag', ": 'write true or false instead of (',
    'could not convert string to float:': 'write a number instead of',
}


class Command(NamedTuple):
    """A command of the help text.

    Attributes:
        usage: the words behind the command's name.
        summary: the command in one sentence.
        define: a function that defines the command's flags.
    """

    usage: str
    summary: str
    define: Callable[[flags.FlagValues], None]


def _define_experiment(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        'config',
        'quickstart',
        'Experiment: a name (quickstart, paper:rda) or the path of a file with a get_config().',
        flag_values=values,
    )
    flags.DEFINE_string(
        'workdir',
        None,
        'Folder or bucket where everything is kept; default runs/EXPERIMENT. The same command '
        'goes on with what it holds.',
        flag_values=values,
    )
    flags.DEFINE_integer(
        'run_index',
        None,
        'Takes only this one of the runs, as --dry_run numbers them: for job arrays.',
        flag_values=values,
    )


def _define_run(values: flags.FlagValues) -> None:
    _define_experiment(values)
    flags.DEFINE_bool(
        'dry_run',
        False,
        'Checks everything and prints the runs, their stages, queries and time; trains nothing.',
        flag_values=values,
    )
    flags.DEFINE_string(
        'hosts',
        '',
        'Computes in several processes, all started with this command: auto on Slurm and TPU pods, '
        'else ADDRESS:PORT,INDEX,NUMBER, as in 10.0.0.1:8476,0,2.',
        flag_values=values,
    )
    flags.DEFINE_integer(
        'workers',
        None,
        'Computes the missing runs in so many processes of this machine, which share its cores or '
        'GPUs. A run that fails stops no other.',
        1,
        flag_values=values,
    )
    flags.DEFINE_string(
        'slurm',
        None,
        'Computes the missing runs as jobs of Slurm and waits for them; what a job gets, as in '
        '--slurm=\'partition="gpu", gpus_per_node=1, timeout_min=60\'.',
        flag_values=values,
    )


def _define_store(values: flags.FlagValues) -> None:
    _define_experiment(values)
    flags.DEFINE_bool(
        'int16',
        False,
        'Stores the networks in half the bytes; refused if that moves an answer by a thousandth.',
        flag_values=values,
    )


def _define_export(values: flags.FlagValues) -> None:
    flags.DEFINE_enum(
        'format',
        None,
        ['safetensors', 'stablehlo', 'onnx'],
        'Weights (safetensors), or a program of any batch size (stablehlo, onnx).',
        flag_values=values,
    )
    flags.DEFINE_string(
        'out',
        '',
        "A new file that ends in the format; default the folder's name, here.",
        flag_values=values,
    )
    _define_list(values)


def _define_list(values: flags.FlagValues) -> None:
    flags.DEFINE_list(
        'modules',
        [],
        'Modules to import first, with names of their own: my_losses,my_defenses.',
        flag_values=values,
    )


def _define_report(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        'out',
        '',
        'Folder of the report; default DIR, where there is only one.',
        flag_values=values,
    )
    flags.DEFINE_string(
        'title', '', 'Heading of the report; default the name of its folder.', flag_values=values
    )


def _define_score(values: flags.FlagValues) -> None:
    texts = {
        'victim': (
            '',
            "Victim: a source, as of victim.source, or an encoder's folder or file.",
        ),
        'suspects': (
            '',
            'Folder of encoders of unknown origin: stages, exported files.',
        ),
        'independents': ('', 'Folder of 8 or more encoders that are known not to be stolen.'),
        'shadows': ('', "Folder of encoders of the victim's recipe that the owner trained."),
        'secrets': (
            '',
            "SSLGuard's secret, and after commas those of decoys: files of sslguard.save.",
        ),
        'private': ('', "The victim's training data that nobody else has: digits/train[:500]."),
        'public': ('', 'Data of the same source that no encoder was trained on: digits/test.'),
        'truth': ('', 'CSV of suspects of known truth, to measure tests with.'),
        'tests': (
            '',
            'Ownership tests, with commas; default all that have what they need.',
        ),
        'out': (
            'scores.csv',
            'The table; the report and what is finished are beside it. Default scores.csv.',
        ),
        'data_dir': ('', 'Folder of prepared TFDS sets.'),
    }
    for name, (default, text) in texts.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_integer(
        'size',
        0,
        "Side of images in pixels; default that of the victim's.",
        0,
        2**10,
        flag_values=values,
    )
    _define_list(values)


def _define_serve(values: flags.FlagValues) -> None:
    texts = {
        'victim': ('', 'Victim: a source, as of victim.source, or a workdir with one victim.'),
        'defense': ('', 'Defense of the answers, as of the field defense; default none.'),
        'tokens': ('', 'File of the accounts, as ssl-extract tokens makes it.'),
        'state': ('runs/serve', 'Folder of ledgers and last answers; default runs/serve.'),
        'host': ('127.0.0.1', 'Address to listen at; by default of this machine only.'),
    }
    for name, (default, text) in texts.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    lists = {
        'input_shape': 'Shape of one input, 32,32,3, of a victim that does not say.',
        'modules': 'Modules to import first, with names of their own: my_defenses.',
    }
    for name, text in lists.items():
        flags.DEFINE_list(name, [], text, flag_values=values)
    numbers = {
        'port': (8000, 0, 65_535, 'Port to listen at; 0 takes any free one. Default 8000.'),
        'max_batch': (1_000, 1, 100_000, 'Inputs in one request; default 1,000.'),
        'requests_per_minute': (0, 0, 100_000, 'Of one account; default 0, which is no limit.'),
    }
    for name, (default, low, high, text) in numbers.items():
        flags.DEFINE_integer(name, default, text, low, high, flag_values=values)


def _define_tokens(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        'budget',
        None,
        'Queries that each of the new accounts may send; default no limit.',
        flag_values=values,
    )


COMMANDS = {
    'run': Command(
        '--config=NAME --workdir=DIR [--config.a.b=c ...]',
        'Runs an experiment, or goes on with one that was stopped.',
        _define_run,
    ),
    'list': Command(
        '[ROOM ...]',
        'Lists what a config can name: losses, defenses, attacks, ..., experiments. What has no '
        'default there is filled in from the config, or must be written.',
        _define_list,
    ),
    'report': Command(
        'DIR ...',
        'Writes one report on all finished runs of the workdirs.',
        _define_report,
    ),
    'store': Command(
        'NAME --config=NAME --workdir=DIR [--config.a.b=c ...]',
        'Writes the finished victim of an experiment to one file, for '
        'victim.source=\'stored("NAME")\'. NAME is a file of experiments/victims/ or the path of a '
        '.safetensors file.',
        _define_store,
    ),
    'export': Command(
        'FOLDER --format=safetensors|stablehlo|onnx',
        'Writes a trained encoder to one file for other programs, and runs the file. FOLDER is the '
        'folder of a stage, as WORKDIR/victim/0123, or a .safetensors file.',
        _define_export,
    ),
    'score': Command(
        '--victim=SOURCE --suspects=FOLDER --independents=FOLDER --public=SET/SPLIT',
        'Tests whether suspects were stolen from a victim: a p-value and a verdict for each '
        'suspect and test. The same command goes on with what is finished.',
        _define_score,
    ),
    'serve': Command(
        '--victim=SOURCE --tokens=FILE [--defense=...]',
        'Serves a victim behind a defense over HTTP, to accounts with budgets. What was billed is '
        'on disk: the same command goes on with it.',
        _define_serve,
    ),
    'tokens': Command(
        'FILE NAME ...',
        'Adds accounts to the file of a service and prints their tokens, once. A new file gets '
        "the owner's token too, which reads the ledger.",
        _define_tokens,
    ),
}


def new_values(command: str, shared: Iterable[flags.Flag] = ()) -> flags.FlagValues:
    """Makes the flags of a command, with absl's logging flags and shared flags.

    Args:
        command: the command's name.
        shared: flags that the command shares with a library.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # a flag may stand behind a folder
    COMMANDS[command].define(values)
    for flag in (*flags.FLAGS.flags_by_module_dict()['absl.logging'], *shared):
        values[flag.name] = flag
    flags.FLAGS.mark_as_parsed()  # libraries read their flags from there
    return values


def parse(values: flags.FlagValues, argv: list[str], known_only: bool = False) -> list[str]:
    """Parses `argv` into `values` and returns the words that are no flags.

    Args:
        values: as made by `new_values`.
        argv: the program's name and its arguments.
        known_only: returns unknown flags with the words.

    Raises:
        UserError: a flag is unknown, or has a wrong value or none.
    """
    with read_errors():
        words = values(argv, known_only=known_only)[1:]
    for name in values:
        value = values[name].value
        if isinstance(value, str) and value.startswith('--'):  # the next flag
            raise UserError(f'--{name} {value}: write --{name}=VALUE')
    return words


@contextlib.contextmanager
def read_errors() -> Iterator[None]:
    """Turns what is raised when flags are read into a UserError."""
    try:
        yield
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        message = str(error.args[0] if error.args else error)
        for words, plain in _PLAINLY.items():
            message = message.replace(words, plain)
        raise UserError(message) from error


def shown_command(argv: list[str]) -> str:
    """Writes a command line down so that a shell reads the same words again.

    >>> shown_command(['launch.py', '--config.defense=round | refuse'])
    "python launch.py '--config.defense=round | refuse'"
    >>> shown_command(['/usr/bin/ssl-extract', 'report', 'my runs'])
    "ssl-extract report 'my runs'"
    """
    is_file = argv[0].endswith('.py')  # else an installed command, which the shell finds
    program = ['python', argv[0]] if is_file else [argv[0].rpartition('/')[2]]
    return shlex.join([*program, *argv[1:]])


def help_text() -> str:
    """Describes all commands and their flags."""
    lines = [
        f'ssl-extract {ssl_extract.__version__}: stealing self-supervised encoders through a '
        'query API, and defending them',
        '',
    ]
    for name, command in COMMANDS.items():
        values = flags.FlagValues()
        command.define(values)
        lines += [f'  ssl-extract {name} {command.usage}', *_wrapped(command.summary, 6)]
        for flag in (values[name] for name in values):
            written = f'--{flag.name}' if flag.boolean else f'--{flag.name}=...'
            lines += _wrapped(flag.help, 24, f'      {written:<18}')
        lines.append('')
    return '\n'.join([*lines, *_wrapped(_CLOSING, 0)])


def _wrapped(text: str, indent: int, first: str | None = None) -> list[str]:
    margin = ' ' * indent
    first = margin if first is None else first
    return textwrap.wrap(text, 100, initial_indent=first, subsequent_indent=margin)
