"""The schema declares each column once, with a meaning, and its page lists them all."""

from __future__ import annotations

from stepfront.tables.__main__ import markdown
from stepfront.tables.schema import FRONT, NOT_CONFIRMED, PROGRESS, PROXY_NAMES, TABLES, TRIAL_COLUMNS, describe


def test_every_column_is_declared_once_per_table_with_a_meaning_of_one_line() -> None:
    for table in TABLES.values():
        assert len(table.names) == len(set(table.names))
        assert not set(table.required) & set(table.fills)
    for file, name, kind, meaning, _ in describe():
        assert file in TABLES
        assert meaning, (file, name, kind)
        assert "\n" not in meaning + name
        assert "|" not in meaning  # it stands in a Markdown table


def test_the_front_has_the_columns_of_a_trial_then_its_confirmation_and_its_label() -> None:
    assert TABLES[FRONT].names == [*TRIAL_COLUMNS, *NOT_CONFIRMED, "within_noise", "label"]


def test_the_page_has_a_line_per_column() -> None:
    page = markdown()
    for file, name, *_ in describe():
        assert f"## {file}" in page
        assert f"| `{name}` |" in page
    assert sum(line.startswith("| `") for line in page.splitlines()) == len(describe())


def test_the_proxies_are_those_that_can_be_chosen() -> None:
    assert PROXY_NAMES == ("gap", "paired", "model")
    assert "hypervolume" in TABLES[PROGRESS].required
