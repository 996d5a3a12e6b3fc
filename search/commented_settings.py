"""Write a settings file in which every setting stands with its description, for `stepfront init`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from stepfront.search.config import RunSettings
from stepfront.search.settings.yaml_reader import read_yaml
from stepfront.search.settings_reference import group_of, keys, yaml_text

WIDTH = 110

EXPLANATION = """All settings, each below what it means.  `#key: value` and `#  key: value` hold defaults: remove
the # to change one, and that of its group where the group has one.  `stepfront doctor FILE` checks the file."""

_KEY = re.compile(r"( *)([a-z_0-9]+):(.*?)(?: +# *(.*))?$")


def commented_settings(preset: str, name: str) -> str:
    """Return the text of a settings file for the run `name` with the values and comments of a preset's text."""
    given = dict(read_yaml(preset)) | {"name": name}
    head = [line.removeprefix("# ").removeprefix("#") for line in preset.splitlines() if line.startswith("#")]
    first = _leading_comments(preset)
    comments = dict(_comments(preset))
    lines = [*(f"# {line}".rstrip() for line in [*head[:first], "", *EXPLANATION.splitlines()]), ""]
    lines += _group_lines(RunSettings, given, comments, "", "")
    return "\n".join(lines) + "\n"


def _leading_comments(text: str) -> int:
    lines = text.splitlines()
    return next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """Yield the comments at the ends of a preset's lines, by the keys of their settings."""
    group = ""
    for line in text.splitlines():
        if (match := _KEY.fullmatch(line)) is None or line.startswith("#"):
            continue
        indent, key, _, comment = match.groups()
        group = group if indent else key
        if comment:
            yield f"{group}.{key}" if indent else key, comment


def _group_lines(
    model: type[BaseModel], given: Mapping[str, Any], comments: Mapping[str, str], prefix: str, indent: str
) -> Iterator[str]:
    """Yield the lines of a group: its single settings, then the groups in it."""
    for key in keys(model):
        yield from _prose(key.description, indent)
        if comment := comments.get(prefix + key.key):
            yield from _prose(comment, indent)
        if key.key in given:
            yield from _value(key.key, given[key.key], indent)
        else:
            yield f"#{indent}{key.key}: {key.default}"
    for name, field in model.model_fields.items():
        if (group := group_of(field)) is not None:
            yield ""
            if comment := comments.get(prefix + name):
                yield from _prose(comment, indent)
            yield f"{'' if name in given else '#'}{indent}{name}:"
            yield from _group_lines(group, given.get(name) or {}, comments, f"{prefix}{name}.", indent + "  ")


def _value(key: str, value: Any, indent: str) -> Iterator[str]:
    """Yield the lines of a given value: one, or one per key of a mapping that is too long for that."""
    line = f"{indent}{key}: {yaml_text(value)}"
    if len(line) <= WIDTH or not isinstance(value, Mapping):
        yield line
        return
    yield f"{indent}{key}:"
    for inner, each in value.items():
        yield f"{indent}  {inner}: {yaml_text(each)}"


def _prose(text: str, indent: str) -> list[str]:
    start = f"{indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)
