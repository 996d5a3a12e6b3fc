"""`make screenshots` where it can't work: a line that says why."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import screenshots


def test_without_a_browser_the_pictures_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screenshots.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["screenshots"])
    screenshots.main()
    assert "no screenshots: none of chromium, chromium-browser, google-chrome is installed" in capsys.readouterr().out


def test_without_a_search_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(screenshots, "find_browser", lambda: "chromium")
    monkeypatch.setattr(sys, "argv", ["screenshots", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="first: make quickstart"):
        screenshots.main()


def test_the_pictures_in_the_docs_are_small_and_all_shown() -> None:
    docs = Path(__file__).parents[1] / "docs"
    page = (docs / "for-analysts.md").read_text(encoding="utf-8")
    for picture in (docs / "screenshots").glob("*.png"):
        assert picture.stat().st_size < 300_000
        assert f"screenshots/{picture.name}" in page
