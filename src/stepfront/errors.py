"""The one kind of error that a user's input causes: a line that says what was given and what is possible."""


class InputError(ValueError):
    """Something the user gave can't be used.  The command line prints its text as one line and exits with 2."""
