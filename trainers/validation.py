"""Validate settings and saved results: typed keys, and one line for what does not fit."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator

from stepfront.addresses import redacted, without_literal_secret
from stepfront.errors import InputError
from stepfront.files import read_json

Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")


class Settings(BaseModel):
    """A frozen group of settings; unknown keys and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    renamed: ClassVar[Mapping[str, str]] = {}
    """New names of keys of earlier versions; an error names them."""

    @field_validator("*")
    @classmethod
    def _no_secret(cls, value: Any) -> Any:
        for text in [value] if isinstance(value, str) else value if isinstance(value, tuple | dict) else []:
            if isinstance(text, str):
                without_literal_secret(text)
        return value


def validate(model: type[Model], given: Mapping[str, Any]) -> Model:
    """Return a plain mapping as a frozen model.

    Raises InputError with one line: the key, what was given and what is possible.
    """
    try:
        # JSON mode is strict ("12" is not a number), but still turns lists into tuples.
        return model.model_validate_json(json.dumps(given))
    except ValidationError as error:
        raise InputError(_one_line(model, error)) from None
    except (TypeError, ValueError) as error:
        raise InputError(f"settings: {error}") from None


def read_result(path: Path, what: str, kind: type[Result], made_from: object = None) -> Result | None:
    """Return the dataclass `kind` in a JSON file, the saved result of a measurement that can be repeated.

    None where the file was made from something else than `made_from` (None: anything), and, with a warning, where
    another version of stepfront has written other keys.  Raises InputError when the file is missing or damaged.
    """
    content = read_json(path, what)
    origin = content.pop("made_from", None)
    if made_from not in (None, origin):
        return None
    fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    missing, unknown = set(fields) - content.keys(), content.keys() - set(fields)
    wrong = [*(f"no {key}" for key in sorted(missing)), *(f"an unknown {key}" for key in sorted(unknown))]
    try:
        if not wrong:
            return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        wrong = [f"{'.'.join(map(str, first['loc']))}: {first['msg']}"]
    logging.getLogger("stepfront").warning(
        "%s was written by another version of stepfront (%s); the %s counts as missing, and is made again where it is "
        "needed",
        *(path, ", ".join(wrong), what),
    )
    return None


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    where = [part for part in first["loc"] if isinstance(part, str)]
    key = ".".join(str(part) for part in first["loc"]) or "settings"
    others = error.error_count() - 1
    more = f"; and {others} other mistake{'s' if others > 1 else ''}" if others else ""
    if first["type"] == "extra_forbidden":
        return _unknown_setting(model, where) + more
    message = _EXPECTED.get(first["type"], first["msg"].removeprefix("Value error, "))
    given = first.get("input")
    # The given value may hold a password, which the message hides.
    hidden = isinstance(given, dict) or "***" in message or (isinstance(given, str) and repr(given) in message)
    shown = "" if hidden else f" (given: {redacted(repr(given))})"
    return f"{key}: {message[:1].lower()}{message[1:]}{shown}{more}"


_WHOLE = "input should be a whole number"
_EXPECTED = {
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": "input should be a number",
    "float_parsing": "input should be a number",
    "bool_type": "input should be true or false",
    "string_type": "input should be text",
    "tuple_type": "input should be a list",
    "list_type": "input should be a list",
    "dict_type": "input should be a group of settings",
    "model_type": "input should be a group of settings",
    "model_attributes_type": "input should be a group of settings",
}
"""What was expected, by pydantic's type of error; its own words are those of a programmer."""


def _unknown_setting(model: type[BaseModel], where: list[str]) -> str:
    """Return the line for an unknown key: its new name or the nearest keys, then all that are possible there."""
    *groups, name = where
    group = _model_at(model, groups)
    renamed = group.renamed.get(name) if issubclass(group, Settings) else None
    if renamed:
        return f"`{'.'.join(where)}` is now `{'.'.join([*groups, renamed])}`; use the new name"
    possible = sorted(group.model_fields)
    near = [".".join([*groups, one]) for one in difflib.get_close_matches(name, possible, n=2, cutoff=0.55)]
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown setting {'.'.join(where)!r}; {guess}possible here: {', '.join(possible)}"


def _model_at(model: type[BaseModel], groups: list[str]) -> type[BaseModel]:
    for name in groups:
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return model


def settings_json(settings: BaseModel) -> dict[str, Any]:
    """Return settings as plain JSON values."""
    return settings.model_dump(mode="json")
