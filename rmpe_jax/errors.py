"""The one kind of error that the user can fix."""


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where, and what to do.

    Entry points (`train.py`, `eval.py`, `rmpe`) print the line without a traceback and exit with
    status 1.
    """
