"""Keep passwords out of the addresses of databases, servers and file systems.

A settings file is written beside every result and travels to MLflow, so it names a password and never holds one:
`postgresql://me:${DB_PASSWORD}@db/stepfront`.  The name becomes its value where a client is made, and nowhere else.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from stepfront.address_secrets import REFERENCE, secrets_in
from stepfront.errors import InputError

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.")
_IN_TEXT = re.compile(r"(?<![A-Za-z0-9+.:-])[A-Za-z0-9][A-Za-z0-9+.:-]*://[^\s'\"<>`|]+")
_UNFINISHED = re.compile(r"://[^:/@?#\s]*:(?!\d+$)[^@\s]*\Z")
_REST_OF_PASSWORD = re.compile(r"[^\n@]{0,100}?@[^\s'\"<>`|]*")
_ASSIGNED = re.compile(
    r"(?<![?&;#\w])((?:\w*(?:password|passwd|passphrase|secret|token)|\w*(?:api|access|account|shared)_?key|pass|pwd|"
    r"sig|sas)\s*=\s*)('[^']*'|\"[^\"]*\"|[^\s,;)]+)",
    re.IGNORECASE,
)
_VALUE = re.compile(r"[?&][^?&=#]+=([^&#]*)")
_NO_ADDRESS = re.compile(r"=|:.*@", re.DOTALL)


def is_uri(place: str | None) -> bool:
    """Return whether a place is a URI, such as s3://bucket/runs, and not a local folder."""
    return place is not None and _URI.match(place) is not None


def joined(uri: str, name: str) -> str:
    """Return the URI of `name` below `uri`, whose query stays at the end."""
    place, question, query = uri.partition("?")
    return f"{place.rstrip('/')}/{name}{question}{query}"


def without_literal_secret(address: str | None) -> str | None:
    """Return the address as given.

    Raises ValueError when it holds what may be a password or a token itself, instead of a `${NAME}`, and when it
    can't be taken apart.
    """
    if address is None or "://" not in address:
        return address
    found = [secret for secret in secrets_in(address) if not secret.named]
    if not found:
        return address
    if found[0].what == "unreadable":
        raise ValueError(
            f"{shown(address)} can't be read as an address: it looks like SCHEME://USER:${{NAME}}@HOST:PORT/PLACE; "
            "write ${NAME} for a password, %40 for an @ in a path, and set NAME in the environment"
        )
    raise ValueError(
        f"{shown(address)} holds {found[0].what}, and settings are written beside every result: write "
        "${NAME} in place of *** and set NAME in the environment, or leave it out (PostgreSQL reads ~/.pgpass)"
    )


def only_address(address: str | None) -> str | None:
    """Return the address of a database or server as given; it may also be a word, such as `journal`, or a path.

    Raises ValueError when it has the form of a connection string with a password, but not of an address.
    """
    if address is None or "://" in address or not _NO_ADDRESS.search(REFERENCE.sub("", address)):
        return without_literal_secret(address)
    begin = re.split(r"[:=]", address, maxsplit=1)[0]
    raise ValueError(
        f"{begin[:20]}*** can't be read as an address: it looks like SCHEME://USER:${{NAME}}@HOST:PORT/PLACE, where "
        "NAME is set in the environment"
    )


def resolved(address: str) -> str:
    """Return the address with each `${NAME}` replaced by the environment's value.

    The result is for a client alone and must never be written down.  In user, password and the value of a parameter,
    it is quoted as a URL needs it.  Raises InputError when a name is not set.
    """
    secret_until = address.rfind("@") if "://" in address else -1
    in_parameters = [match.span(1) for match in _VALUE.finditer(address)] if "://" in address else []

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise InputError(f"{shown(address)} names ${{{match[1]}}}, which this environment does not set")
        quoted = match.start() < secret_until or any(begin <= match.start() < end for begin, end in in_parameters)
        return quote(value, safe="") if quoted else value

    return REFERENCE.sub(value_of, address)


def shown(address: str) -> str:
    """Return one complete address with everything that may be a secret replaced by ***."""
    parts, end = [], 0
    for secret in secrets_in(address):
        if secret.start >= end:
            parts += [address[end : secret.start], "***"]
            end = secret.end
    return "".join([*parts, address[end:]])


def redacted(text: object) -> str:
    """Return a text, such as a client's error, with what may be a secret in its addresses replaced by ***."""
    source = str(text)
    parts, end = [], 0
    for match in _IN_TEXT.finditer(source):
        if match.start() < end:
            continue
        address = match[0]
        if _UNFINISHED.search(address) and (rest := _REST_OF_PASSWORD.match(source, match.end())):
            address += rest[0]  # a password with a space in it
        address = address.rstrip(":.,;)")
        parts += [source[end : match.start()], shown(address)]
        end = match.start() + len(address)
    return _ASSIGNED.sub(r"\1***", "".join([*parts, source[end:]]))
