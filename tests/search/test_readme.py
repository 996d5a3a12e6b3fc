"""The lines of Python on the first page run, on a small supernet in place of the quickstart's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepfront
from tests.search.conftest import tiny_settings

ROOT = Path(__file__).resolve().parents[2]


def test_the_python_of_the_readme_runs(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    load_settings = stepfront.load_settings

    def load_small(path: str, overrides: list[str]) -> Any:
        load_settings(ROOT / path, overrides)
        return tiny_settings(fresh, "budget.trials=5", "confirm.images=16", "confirm.seeds=2")

    monkeypatch.setattr(stepfront, "load_settings", load_small)
    names: dict[str, Any] = {}
    exec(block, names)
    assert "fid_confirmed" in capsys.readouterr().out
    assert list(names["front"]["gflops"]) == sorted(names["front"]["gflops"])
    assert names["images"].dtype == np.uint8
    assert len(names["images"]) == 16
