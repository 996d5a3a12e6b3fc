"""Put `--set key=value` overrides into plain settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from stepfront.addresses import redacted
from stepfront.errors import InputError
from stepfront.search.settings.yaml_reader import read_yaml


def apply_overrides(content: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of plain settings with `key=value` overrides, such as `budget.trials=200`.

    Raises InputError with one line, which begins with `--set`, for an override that can't be read.
    """
    merged = _copy(content)
    for override in overrides:
        keys, text = _parts(override)
        _put(merged, keys, _value(text, keys))
    return merged


def each_once(overrides: Sequence[str]) -> Sequence[str]:
    """Return the overrides of a command line as given; raise InputError when one undoes another."""
    given: dict[tuple[str, ...], str] = {}
    for override in overrides:
        keys, text = _parts(override)
        undone = next((other for other in given if other[: len(keys)] == keys and given[other] != text), None)
        if undone is not None:
            after = ".".join(undone)
            raise InputError(f"--set: {'.'.join(keys)} is given after {after}, and undoes it; keep one of them")
        given[keys] = text
    return overrides


def override_key(override: str) -> str:
    """Return the key of an override, such as `budget.trials`."""
    return ".".join(_parts(override)[0])


def _parts(override: str) -> tuple[tuple[str, ...], str]:
    key, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise InputError(f"--set {redacted(override)!r}; an override looks like budget.trials=200")
    return keys, text


def _copy(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in content.items()}


def _value(text: str, keys: tuple[str, ...]) -> Any:
    """Return the value of an override; a text that is not YAML, such as `a: b: c`, is itself."""
    try:
        return read_yaml(text, keys=keys)
    except yaml.YAMLError:
        return text
    except InputError as error:
        raise InputError(f"--set: {error}") from None


def _put(target: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise InputError(f"--set: {'.'.join(keys)}: {key} is a single value, not a group of settings")
    target[keys[-1]] = value
