"""The one kind of error that is the user's to mend."""


class UserError(Exception):
    """Bad input, said in one line: what is wrong, where, and what to do.

    Entry points (`train.py`, `eval.py`, `rmpe`) print the line without a traceback and exit with 1.
    """
