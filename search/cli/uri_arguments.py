"""URIs where a verb expects a directory: typed in as s3://bucket/runs/digits, handed to the verb as a local copy."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

_COLLAPSED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/([^/].*)")

Verb = TypeVar("Verb", bound=Callable[..., Any])


def uri_of(path: Path) -> str | None:
    """The URI that was typed in where a path was expected (Path makes `s3:/` of `s3://`); None where it is a path."""
    match = _COLLAPSED.fullmatch(str(path))
    return None if match is None else f"{match[1]}:///{match[2]}" if match[1] == "file" else f"{match[1]}://{match[2]}"


def read_from_uri(*names: str) -> Callable[[Verb], Verb]:
    """The verb's arguments of these names may be URIs, or lists with some: it reads a local copy of what lies there."""
    return _with_copies(names, brings_back=False)


def kept_at_uri(name: str) -> Callable[[Verb], Verb]:
    """The verb's argument of this name may be a URI: what the verb changes is brought there by its end."""
    return _with_copies((name,), brings_back=True)


def _with_copies(names: tuple[str, ...], brings_back: bool) -> Callable[[Verb], Verb]:
    def decorate(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def on_copies(**given: Any) -> Any:
            with contextlib.ExitStack() as held:
                for name in names:
                    value = given[name]
                    copied = [
                        _copy(path, held, brings_back) for path in (value if isinstance(value, list) else [value])
                    ]
                    given[name] = copied if isinstance(value, list) else copied[0]
                return verb(**given)

        return on_copies  # type: ignore[return-value]

    return decorate


def _copy(path: Path | None, held: contextlib.ExitStack, brings_back: bool) -> Path | None:
    uri = None if path is None else uri_of(path)
    if uri is None:
        return path
    from stepfront.addresses import without_literal_secret
    from stepfront.errors import InputError
    from stepfront.search.storage.working_copy import fetched, mirrored

    try:
        without_literal_secret(uri)
    except ValueError as error:
        raise InputError(str(error)) from None

    return held.enter_context(mirrored(uri)) if brings_back else fetched(uri)
