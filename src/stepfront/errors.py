"""Define the error that a user's input causes, and how an error becomes one line."""


class InputError(ValueError):
    """Report something that the user gave and that can't be used.

    The text says what was given, what is possible and what to do.  The command line prints it as one line and exits
    with code 2.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type's name where the text is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
