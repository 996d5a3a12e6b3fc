"""Read numbers of the benchmarks' command lines."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """Return a number from 1 on; a type for argparse, whose error is one line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)
