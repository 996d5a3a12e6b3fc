"""Address SQLite files, whatever characters their paths hold."""

from __future__ import annotations

import re
from pathlib import Path

PREFIX = "sqlite:///"

_PLAIN = re.compile(r"[^%?#]*")
_QUERY = re.compile(r"\?\w+=")


def sqlite_file(url: str | None) -> Path | None:
    """Return the file that sqlite:///FILE names, absolute; None for other addresses and those with a query."""
    if url is None or not url.startswith(PREFIX) or _QUERY.search(url):
        return None
    return Path(url.removeprefix(PREFIX)).absolute()


def sqlite_url(file: Path) -> str:
    """Return how people write the address of a file: sqlite:///FILE."""
    return f"{PREFIX}{file}"


def client_url(file: Path) -> str:
    """Return the address of a file for SQLAlchemy, which reads % and ? in it.

    The driver is named where there are such characters: MLflow then does not take the address for a path.
    """
    if _PLAIN.fullmatch(str(file)):
        return sqlite_url(file)
    from sqlalchemy import URL

    return URL.create("sqlite+pysqlite", database=str(file)).render_as_string(hide_password=False)
