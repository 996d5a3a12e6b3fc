"""Settings files and `--set`: what YAML would read otherwise than it is meant is refused, with key and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepfront.errors import InputError
from stepfront.search.config import load_settings, save_settings, settings_from

REFUSED = {
    "a key twice": ("budget: {trials: 5}\nname: a\nbudget: {minutes: 5}\n", 3, "budget: this key stands twice, first"),
    "a key twice in a group": ("budget:\n  trials: 5\n  trials: 6\n", 3, "budget.trials: this key stands twice"),
    "a key twice in flow": ("network: {base: 8, base: 8}\n", 1, "network.base: this key stands twice"),
    "octal": ("name: a\nbudget: {trials: 0200}\n", 2, "budget.trials: 0200 has a leading zero"),
    "octal with underscore": ("budget: {trials: 0_7}\n", 1, "budget.trials: 0_7 has a leading zero"),
    "no octal digit": ("budget: {trials: 089}\n", 1, "write 89, or put it in quotes"),
    "octal in a list": ("network:\n  multipliers: [1, 02]\n", 2, "network.multipliers: 02 has a leading zero"),
    "base 60": ("budget: {minutes: 10:00}\n", 1, "budget.minutes: 10:00 is a number to the base 60"),
    "base 60 with fraction": ("budget: {minutes: 1:30.5}\n", 1, "budget.minutes: 1:30.5 is a number to the base 60"),
    "a date": ("\nname: 2026-01-31\n", 2, "name: 2026-01-31 is a date"),
    "a time": ("name: 2026-01-31 10:00:00\n", 1, "name: 2026-01-31 10:00:00 is a date"),
    "an anchor in itself": ("budget: &b {trials: *b}\n", 1, "budget.trials: the anchor contains itself"),
    "a list in itself": ("network: &n\n  widths: &w [1, *w]\n", 2, "network.widths: the anchor contains itself"),
    "many aliases": (
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{y}: &{y} [{','.join(['*' + x] * 10)}]\n" for x, y in zip("abcdef", "bcdefg", strict=True)),
        1,
        "more than 10,000 values",
    ),
    "a number as a key": ("budget: {1: 2}\n", 1, "budget: the key 1 is read as int"),
    "yes as a key": ("yes: 2\n", 1, "the key yes is read as bool"),
    "a list as a key": ("? [1, 2]\n: 3\n", 1, "a list or a group can't be a key"),
    "binary": ("name: !!binary aGVsbG8=\n", 1, "name: the tag tag:yaml.org,2002:binary is not possible"),
    "a set": ("budget: !!set {trials}\n", 1, "budget: the tag tag:yaml.org,2002:set is not possible"),
    "an object": ("name: !!python/object/apply:os.getcwd []\n", 1, "the tag tag:yaml.org,2002:python/object"),
    "a large seed": ("search_seed: 99999999999999999999\n", 1, "search_seed: 99999999999999999999 is too large"),
    "a very long seed": (f"search_seed: {'9' * 5000}\n", 1, "(5000 characters) is too large"),
    "no YAML": ("name: a\nbudget: {trials: 5\n", 3, "expected ',' or '}'"),
    "two documents": ("name: a\n---\nname: b\n", 2, "another document"),
    "a tab": ("budget:\n\ttrials: 5\n", 2, "cannot start any token"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_says_something_else_than_it_seems_is_refused_with_key_and_line(case: str, tmp_path: Path) -> None:
    text, line, said = REFUSED[case]
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_settings(tmp_path / "c.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert f"line {line}: " in message
    assert message.startswith(str(tmp_path / "c.yaml"))
    assert said in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("budget.trials=0200", "--set: budget.trials: 0200 has a leading zero"),
        ("budget.minutes=10:00", "--set: budget.minutes: 10:00 is a number to the base 60"),
        ("name=2026-01-31", "--set: name: 2026-01-31 is a date"),
        ("budget={trials: 1, trials: 2}", "--set: budget.trials: this key stands twice"),
        ("budget=&b {trials: *b}", "--set: budget.trials: the anchor contains itself"),
        ("search_seed=18446744073709551616", "--set: search_seed: 18446744073709551616 is too large"),
        ("search_seed=4294967296", "--set: search_seed: input should be less than or equal to 4294967295"),
        ("budget..trials=2", "an override looks like budget.trials=200"),
        ("training.lr=.inf", "--set: training.lr: input should be a finite number"),
    ],
)
def test_overrides_are_read_with_the_same_care(override: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        settings_from({}, [override])
    assert str(caught.value).startswith(said) or (said in str(caught.value) and said.startswith("an override"))
    assert "\n" not in str(caught.value)


def test_an_override_that_undoes_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: b\n")
    with pytest.raises(InputError, match=r"^--set: budget\.trials is given after budget\.trials, and undoes it"):
        load_settings(tmp_path / "c.yaml", ["budget.trials=1", "budget.trials=2"])
    with pytest.raises(InputError, match=r"^--set: budget is given after budget\.minutes, and undoes it"):
        load_settings(tmp_path / "c.yaml", ["budget.minutes=1", "budget={trials: 2}"])
    refined = load_settings(tmp_path / "c.yaml", ["budget={trials: 2}", "budget.minutes=1", "name=a", "name=a"])
    assert (refined.budget.trials, refined.budget.minutes, refined.name) == (2, 1, "a")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_changes_nothing(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes("name: a\ntracking: {experiment: Größe}\n".encode(encoding))
    settings = load_settings(tmp_path / "c.yaml")
    assert (settings.name, settings.tracking.experiment) == ("a", "Größe")


def test_other_encodings_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes("name: Größe\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"is not UTF-8 text \(.* at byte 8\); save it as UTF-8"):
        load_settings(tmp_path / "c.yaml")


def test_what_is_meant_as_it_stands_is_taken(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "name: '007'\ndata: {flip: yes}\ntraining: {lr: 1e-3, seed: 0}\nbudget: &b {trials: 1_000, minutes: 0.5}\n"
        "variation: {<<: {mutations: 2}, population: 10}\nnetwork: {attention: [0x4]}\n"
    )
    settings = load_settings(tmp_path / "c.yaml")
    assert (settings.name, settings.data.flip, settings.training.lr) == ("007", True, 1e-3)
    assert settings.budget.trials == 1000
    assert (settings.variation.mutations, settings.variation.population) == (2, 10)
    assert settings.network.attention == (4,)


@pytest.mark.parametrize("name", ["089", "007", "1e5", "2026-01-31", "no", "12.50"])
def test_a_name_that_resembles_a_number_is_saved_as_a_text(name: str, tmp_path: Path) -> None:
    settings = settings_from({"name": name})
    save_settings(settings, tmp_path / "s.yaml")
    assert load_settings(tmp_path / "s.yaml") == settings
