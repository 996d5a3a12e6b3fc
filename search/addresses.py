"""Addresses of databases and servers: what a settings file may say of them in, what a client is given out.

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
    """Whether a place is behind a file system of pyarrow or fsspec, such as s3://bucket/runs."""
    return place is not None and _URI.match(place) is not None


def joined(uri: str, name: str) -> str:
    """`name` below a URI, before its query."""
    place, question, query = uri.partition("?")
    return f"{place.rstrip('/')}/{name}{question}{query}"


def without_literal_secret(address: str | None) -> str | None:
    """The address as given; ValueError where it holds a password or a token itself instead of a `${NAME}`."""
    if address is None or "://" not in address:
        return address
    # What a reference stands for is none of our business here, and its braces are nothing that a URL may hold.
    plain = _REFERENCE.sub("", address)
    # By the pattern, not by a parser: databases' own readers take passwords that no parser of URLs does.
    given = [key for key, value in parse_qsl(plain.partition("?")[2]) if value]
    held = bool(_PASSWORD.search(plain.replace(":@", "@"))) or any(map(_SECRET_KEY.search, given))
    if held:
        raise ValueError(
            f"{hidden(address)} holds a password, and settings are written beside every result: write "
            "${NAME} in its place and set NAME in the environment, or leave it out (PostgreSQL reads ~/.pgpass)"
        )
    return address


def resolved(address: str) -> str:
    """The address with each `${NAME}` replaced by the environment's value, for a client alone: never write it down.

    In the place of user and password a value is quoted as a URL needs it.  InputError where a name is not set.
    """
    secret_until = address.rfind("@") if "://" in address else -1

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise InputError(f"{hidden(address)} names ${{{match[1]}}}, which this environment does not set")
        return quote(value, safe="") if match.start() < secret_until else value

    return _REFERENCE.sub(value_of, address)


def hidden(text: object) -> str:
    """A text, such as a client's error, with the passwords of its URLs replaced by ***."""
    return _SECRET_PARAMETER.sub(r"\1=***", _PASSWORD.sub(r"\1:***@", str(text)))
