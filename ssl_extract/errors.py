"""The one error that means "the input is wrong", as opposed to "the program is wrong"."""


class UserError(ValueError):
    """Wrong input: one line that names the field, its value and what to write instead.

    `launch.py` prints it without a traceback and exits with status 2.
    """
