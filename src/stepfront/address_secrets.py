"""Find what may be a secret in an address: by what is known to be harmless, not by a list of bad names.

A password, a token in the place of a user's name, and the value of each parameter that `HARMLESS` does not list count
as secret.  So does all of an address that can't be taken apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAMED = "\ue000"  # stands for each character of a `${NAME}`, so that positions stay
_SCHEME = re.compile(r"(?:[A-Za-z0-9+.-]+::?)*[A-Za-z][A-Za-z0-9+.-]*\Z")  # jdbc:postgresql, simplecache::s3
_PARAMETER = re.compile(r"([?&;#])([^=&;#]*)(?:(=)([^&;#]*))?")
_HOST = re.compile(rf"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]]*)(?::[\d{_NAMED}]*)?\Z")
_PORT = re.compile(r":\d*\Z")
_KNOWN_HOST = re.compile(r"(?:localhost|[^:]*\.[^:]*|\[.*\]):\d*\Z")  # a user's name has no dot
_LOCAL = ("file", "sqlite")
_OBJECT_STORES = ("s3", "gs", "gcs", "abfs", "abfss", "wasb", "wasbs", "hdfs", "viewfs")
_BY_RFC = ("http", "https", "ray", "mlflow-artifacts", *_OBJECT_STORES)
"""Schemes in which a password ends before the first slash; databases take all until an @ for the password."""

_ASSIGNMENT = re.compile(r"(?:pass|pwd|secret|token|key|sig|sas|credential)\w*\s*=", re.IGNORECASE)

_HARMLESS = """
    allow_bucket_creation allow_bucket_deletion allow_delayed_open anonymous application_name authenticator
    autocommit background_writes blob_storage_authority buffer_size cache catalog channel_binding charset
    check_directory_existence_before_creation check_same_thread client_encoding connect_timeout connection_timeout
    database db dbname default_block_size default_metadata dfs_storage_authority driver enable_tls encoding encrypt
    endpoint_override fallback_application_name force_virtual_addressing gssencmode host hostname http_path
    immutable isolation_level keepalives keepalives_count keepalives_idle keepalives_interval load_balance_hosts
    local_infile loglevel max_allowed_packet mode multisubnetfailover namespace nolock options pool_recycle
    pool_size port project read_timeout region replication requiressl retry_limit_seconds role schema scheme
    search_path server service service_name sid ssl_ca ssl_cert ssl_check_hostname ssl_disabled ssl_mode
    ssl_verify_cert ssl_verify_identity sslcert sslcompression sslmode sslnegotiation sslrootcert statement_timeout
    target_session_attrs tcp_user_timeout timeout tls_ca_dir_path tls_ca_file_path tls_verify_certificates transport
    trusted_connection trustservercertificate unix_socket uri use_hdfs3 user username verify version versionid
    warehouse write_timeout
"""
HARMLESS = frozenset(_HARMLESS.split())
"""Parameters of databases, of pyarrow's and fsspec's file systems and of HTTP whose values may be written down."""


@dataclass(frozen=True)
class Secret:
    """A part of an address that may be a secret: its position, what it is, and whether a `${NAME}` stands for it."""

    start: int
    end: int
    what: str
    named: bool = False


def secrets_in(address: str) -> list[Secret]:
    """Return the parts of an address that may be secrets, in their order."""
    masked = REFERENCE.sub(lambda match: _NAMED * len(match[0]), address)
    found: list[Secret] = []
    start = 0
    for at in [match.start() for match in re.finditer("://", masked)]:
        begin = re.search(r"[A-Za-z0-9+.:-]*\Z", masked[start:at])
        first = start + (begin.start() if begin else 0) if start else 0
        if not found or at >= found[-1].end:
            found += _secrets_after(masked, masked[first:at], at + 3)
        start = at + 3
    return sorted(found, key=lambda secret: secret.start)


def _secrets_after(text: str, scheme: str, start: int) -> Iterator[Secret]:
    """Yield the secrets of one address in a text, whose scheme ends in `://` before `start`."""
    unreadable = Secret(start, len(text), "unreadable")
    if not _SCHEME.match(scheme):
        yield unreadable
        return
    kind = re.split(r"[:+]", scheme.lower())[-1 if "+" not in scheme else -2]
    host = start
    if not (kind in _LOCAL and text.startswith("/", start)):
        end_of_user = _end_of_user(text, kind, start)
        if end_of_user is not None:
            yield from _in_user(text[start:end_of_user], kind, start)
            host = end_of_user + 1
        head = _head(text, host)
        readable = all(_HOST.match(one) for one in head.split(",")) or kind == "databricks"
        if not readable or (end_of_user is None and _may_be_password(text, kind, host, head)):
            yield unreadable
            return
    yield from _in_parameters(text, kind, host)


def _head(text: str, start: int) -> str:
    """Return what stands before the first `/`, `?`, `#` or `;`: the host, or the begin of a user and password."""
    return re.split(r"[/?#;]", text[start:], maxsplit=1)[0]


def _end_of_user(text: str, kind: str, start: int) -> int | None:
    """Return the position of the @ behind user and password, or None where there is no user."""
    head = _head(text, start)
    if "@" in head:
        user, _, password = head.partition("@")[0].partition(":")
        named = bool(password) and not password.strip(_NAMED)
        # A password that is written out may hold an @ of its own; what follows a name is the host.
        return start + (len(user) + 1 + len(password) if named else head.rindex("@"))
    at = text.find("@", start)
    if at < 0 or ":" not in head or "://" in text[start:at]:
        return None
    return None if _PORT.search(head) and kind in _BY_RFC else text.rindex("@")


def _may_be_password(text: str, kind: str, host: int, head: str) -> bool:
    """Return whether `me:123/4@db` is as likely as `host:123/path@4`."""
    path = re.split(r"[?#]", text[host + len(head) :], maxsplit=1)[0]
    return kind in _BY_RFC and ":" in head and "@" in path and not _KNOWN_HOST.match(head)


def _in_user(user: str, kind: str, start: int) -> Iterator[Secret]:
    name, colon, password = user.partition(":")
    if password:
        yield Secret(start + len(name) + 1, start + len(user), "a password", not password.strip(_NAMED))
    literal = name.strip(_NAMED)
    alone = kind in {"http", "https"} and not password  # nobody logs in there by a name alone: it is a token
    if literal and (alone or ":" in unquote(literal) or _resembles_token(literal)):
        yield Secret(start, start + len(name), "a token as the user's name")


def _in_parameters(text: str, kind: str, start: int) -> Iterator[Secret]:
    after_secret = False
    for match in _PARAMETER.finditer(text, start):
        sign, name, equals, value = match.groups()
        key, given = unquote(name).strip().lower(), value if equals else name
        if not given:
            continue
        if equals:
            secret = key not in HARMLESS or _holds_secret(value, key)
        else:
            # A word without `=` is part of a file's name, or the rest of a value that holds the sign itself.
            in_list = sign in "?&" and kind not in _LOCAL
            secret = key not in HARMLESS and (in_list or after_secret or _resembles_token(given))
        if secret:
            after_secret = True
            what = f"a value of {key!r}" if equals else "a parameter without a name"
            yield Secret(*match.span(4 if equals else 2), what, not given.strip(_NAMED))


def _holds_secret(value: str, key: str) -> bool:
    """Return whether the value of a harmless parameter holds an address or an assignment with a secret."""
    decoded = value
    for _ in range(3):
        decoded = unquote(decoded)
    if "://" in decoded and secrets_in(decoded):
        return True
    return bool(_ASSIGNMENT.search(decoded)) or (key in {"user", "username"} and _resembles_token(decoded))


def _resembles_token(text: str) -> bool:
    """Return whether a name has sixteen letters and digits, some of each, in a row, as made by a machine."""
    runs = re.findall(r"[A-Za-z0-9+/=]{16,}", unquote(text))
    return any(re.search(r"\d", run) and re.search(r"[A-Za-z]", run) for run in runs)
