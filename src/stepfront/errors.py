"""Define the error that a user's input causes, and how an error becomes one line."""


class InputError(ValueError):
    """Report something that the user gave and that can't be used.

    The text says what was given, what is possible and what to do.  The command line prints it as one line and exits
    with code 2.
    """


def first_line(error: BaseException, text: str | None = None) -> str:
    """Return the first line of an error's text, or its type's name where the text is empty.

    `text` stands for the error's own where passwords had to be removed from that.
    """
    lines = (str(error) if text is None else text).splitlines()
    return next((line.strip() for line in lines if line.strip()), type(error).__name__)
