"""The settings reference: complete, up to date and readable."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field, PositiveInt

from stepfront.search.config import RunSettings
from stepfront.search.settings_reference import groups, keys, reference, type_name

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def all_keys() -> list[Any]:
    return [*keys(RunSettings), *(key for name, group in groups(RunSettings) for key in keys(group, f"{name}."))]


def test_the_page_in_docs_is_the_generated_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "docs/settings.md is stale; run: make docs"


def test_every_key_has_a_description() -> None:
    assert [key.key for key in all_keys() if len(key.description) < 5] == []
    assert all(group.__doc__ for _, group in groups(RunSettings))


def test_the_keys_are_those_of_a_saved_settings_file() -> None:
    names = {name for name, _ in groups(RunSettings)}

    def flat(saved: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in saved.items():
            if prefix + name in names:
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    assert {key.key for key in all_keys()} == {name for name, _ in flat(RunSettings().model_dump(mode="json"))}


def test_a_default_reads_back_as_the_value() -> None:
    saved = RunSettings().model_dump(mode="json")
    for key in all_keys():
        value = reduce(lambda found, name: found[name], key.key.split("."), saved)
        assert yaml.safe_load(key.default) == value, key


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | None, "whole number or null"),
        (tuple[PositiveInt, ...], "list of whole numbers"),
        (dict[str, int], "mapping of texts to whole numbers"),
        (Literal[False, "even"], "`false`, `even`"),
        (Literal["auto"] | Annotated[int, Field(ge=1)], "`auto` or whole number"),
    ],
)
def test_types_are_written_in_words(annotation: Any, words: str) -> None:
    assert type_name(annotation) == words
