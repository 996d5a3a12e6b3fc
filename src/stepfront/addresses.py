"""Keep passwords out of the addresses of databases, servers and file systems.

A settings file is written beside every result and travels to MLflow, so it names a password and never holds one:
`postgresql://me:${DB_PASSWORD}@db/stepfront`.  The name becomes its value where a client is made, and nowhere else.
"""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, quote

from stepfront.errors import InputError

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.")
_PASSWORD = re.compile(r"(://[^:/@\s]*):(?!\d+/)[^@\s]*@")  # not a port, with an @ somewhere in the path
_SECRET_KEY = re.compile(r"pass|secret|token", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(r"([?&][^=&\s]*(?:pass|secret|token)[^=&\s]*)=[^&\s]*", re.IGNORECASE)


def is_uri(place: str | None) -> bool:
    """Return whether a place is a URI, such as s3://bucket/runs, and not a local folder."""
    return place is not None and _URI.match(place) is not None


def joined(uri: str, name: str) -> str:
    """Return the URI of `name` below `uri`, whose query stays at the end."""
    place, question, query = uri.partition("?")
    return f"{place.rstrip('/')}/{name}{question}{query}"


def without_literal_secret(address: str | None) -> str | None:
    """Return the address as given.

    Raises ValueError when it holds a password or a token itself instead of a `${NAME}`.
    """
    if address is None or "://" not in address:
        return address
    # A reference is allowed whatever it stands for, and a URL may not hold its braces.
    plain = _REFERENCE.sub("", address)
    # By a pattern, not by a parser: databases accept passwords that no parser of URLs does.
    given = [key for key, value in parse_qsl(plain.partition("?")[2]) if value]
    held = bool(_PASSWORD.search(plain.replace(":@", "@"))) or any(map(_SECRET_KEY.search, given))
    if held:
        raise ValueError(
            f"{redacted(address)} holds a password, and settings are written beside every result: write "
            "${NAME} in its place and set NAME in the environment, or leave it out (PostgreSQL reads ~/.pgpass)"
        )
    return address


def resolved(address: str) -> str:
    """Return the address with each `${NAME}` replaced by the environment's value.

    The result is for a client alone and must never be written down.  In user and password, a value is quoted as a URL
    needs it.  Raises InputError when a name is not set.
    """
    secret_until = address.rfind("@") if "://" in address else -1

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise InputError(f"{redacted(address)} names ${{{match[1]}}}, which this environment does not set")
        return quote(value, safe="") if match.start() < secret_until else value

    return _REFERENCE.sub(value_of, address)


def redacted(text: object) -> str:
    """Return a text, such as a client's error, with the passwords of its URLs replaced by ***."""
    return _SECRET_PARAMETER.sub(r"\1=***", _PASSWORD.sub(r"\1:***@", str(text)))
