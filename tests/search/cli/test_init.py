"""`stepfront init`: the file that it writes, and the files that it does not write."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepfront.search.config import load_settings, settings_from
from stepfront.search.presets import preset, preset_names
from tests.search.cli.test_cli import call


def test_a_file_is_written_once(tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    code, shown, _ = call(monkeypatch, capsys, "init", "mine.yaml", "--preset", "fashion-mnist")
    assert code == 0
    assert "stepfront train mine.yaml" in shown
    assert load_settings(Path("mine.yaml")) == settings_from(preset("fashion-mnist") | {"name": "mine"})
    Path("mine.yaml").write_text("name: kept\n")
    code, _, error = call(monkeypatch, capsys, "init", "mine.yaml")
    assert (code, error.count("\n")) == (2, 1)
    assert "mine.yaml exists already" in error
    assert Path("mine.yaml").read_text() == "name: kept\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("a.yaml", "--preset", "mnist"),
            "unknown preset 'mnist'; possible: cifar10, digits, fashion-mnist, imagenet-256-dit-xl2, imagenet64, "
            "lsun-bedroom-256-ldm, stable-diffusion-15",
        ),
        (("a.txt",), "a.txt is not a .yaml file"),
        (("nowhere/a.yaml",), "nowhere/a.yaml"),
    ],
)
def test_bad_words_write_nothing(words: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    code, _, error = call(monkeypatch, capsys, "init", *words)
    assert (code, error.count("\n")) == (2, 1)
    assert expected in error
    assert not list(tmp_path.iterdir())


def test_the_help_names_every_preset(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", "300")
    _, shown, _ = call(monkeypatch, capsys, "init", "--help")
    assert [name for name in preset_names() if name not in shown] == []
