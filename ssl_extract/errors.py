"""The error of wrong input, and the places of errors in the user's code."""

import pathlib
import sysconfig
import traceback

_PACKAGE = pathlib.Path(__file__).parent
_LIBRARIES = (pathlib.Path(sysconfig.get_path('stdlib')), _PACKAGE)
_SHOWN = 1000  # characters of a message of the user's code


class UserError(ValueError):
    """Wrong input: one line that names the field, its value and what to write instead.

    The command line prints the message without a traceback and exits with status 2.
    """


def told_with_place(error: BaseException) -> str:
    """Writes an error of the user's code, in one line, with the line of code that led to the error.

    Args:
        error: as it was raised while the user's code ran.
    """
    if isinstance(error, SyntaxError) and error.filename:
        line = f', line {error.lineno}' if error.lineno else ''
        return f'{error.filename}{line}: {error.msg}'
    name = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
    try:
        said = str(error)
    except Exception:  # of the user's __str__
        said = 'it cannot be shown'
    said = said if len(said) <= _SHOWN else f'{said[:_SHOWN]}...'
    return one_line(f'{place_of(error)}{name}{said}').removesuffix(':')


def one_line(text: str) -> str:
    """Returns a text in one line, without what cannot be printed, such as a terminal's commands.

    >>> one_line('no \\n  quota')
    'no quota'
    """
    return ''.join(sign for sign in ' '.join(text.split()) if sign.isprintable())


def place_of(error: BaseException) -> str:
    """Returns the last line of the user's code that led to an error, as 'FILE, line N: ' or ''.

    Args:
        error: as it was raised while the user's code ran.
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    return f'{frames[-1].filename}, line {frames[-1].lineno}: ' if frames else ''


def _is_users(filename: str) -> bool:
    """Returns whether the user wrote a source file: neither installed, nor Python's, nor ours."""
    path = pathlib.Path(filename)
    if filename.startswith('<') or {'site-packages', 'dist-packages'} & {*path.parts}:
        return False
    if path.is_relative_to(_PACKAGE / 'experiments'):
        return True
    return not any(path.is_relative_to(folder) for folder in _LIBRARIES)
