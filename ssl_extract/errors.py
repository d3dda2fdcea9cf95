"""The error of wrong input, `UserError`."""


class UserError(ValueError):
    """Wrong input: one line that names the field, its value and what to write instead.

    The command line prints the message without a traceback and exits with status 2.
    """
