"""Print lines: wrapped at words on a terminal, on one line each with the time in a log."""

from __future__ import annotations

import textwrap
import time

from rich.console import Console
from rich.text import Text

TIME = "%Y-%m-%d %H:%M:%S"


def print_text(console: Console, text: str, style: str | None = None, indent: int = 0) -> None:
    """Print a text; on a terminal its lines are wrapped at words, and continue `indent` characters to the right.

    Paths and other long words stay complete, so that they can be copied.  Square brackets are not markup.
    """
    lines = text.split("\n")
    if console.is_terminal:
        lines = [_wrapped(line, console.width, indent) for line in lines]
    # As a Text: a style of the call would also be that of a live view below.
    console.print(Text("\n".join(lines), style=style or ""), soft_wrap=True)


def print_event(console: Console, text: str, style: str | None = None) -> None:
    """Print what is being done now; in a log the line begins with the local time."""
    in_log = not (console.is_terminal or console.is_jupyter)
    print_text(console, f"{time.strftime(TIME)} {text}" if in_log else text, style)


def wrapping(text: str, style: str = "") -> Text:
    """Return a text that is wrapped at words within a table or a live view, also by a console that wraps nothing."""
    return Text(text, style=style, no_wrap=False, overflow="fold")


def _wrapped(line: str, width: int, indent: int) -> str:
    """Return a line broken at spaces; of a word that is longer than the width, nothing is broken."""
    margin = " " * indent
    return textwrap.fill(line, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)
