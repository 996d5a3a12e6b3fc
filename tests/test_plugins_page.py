"""docs/plugins.md: its settings are valid, and its examples pass its own tests, as a stranger would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import stepfront
from stepfront.plugins import FAMILIES, FEATURES, FORMATS, PROXIES, SOLVERS
from stepfront.search.config import settings_from

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plugins.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, as their first lines name them."""
    folder = tmp_path_factory.mktemp("plugins")
    for block in blocks("python"):
        path = folder / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(block)
    return folder


def test_the_settings_of_the_page_are_valid() -> None:
    (given,) = blocks("yaml")
    settings = settings_from(yaml.safe_load(given))
    assert settings.sampler.solver == "my_parts.solvers:ddim_half"


def test_the_page_has_every_kind_of_part() -> None:
    for registry in (FAMILIES, FORMATS, FEATURES, SOLVERS, PROXIES):
        assert f"`{registry.group}`" in TEXT
    for row in re.findall(r"\| `(\w+)` in (\S+) \|", TEXT):
        assert f"class {row[0]}(" in (PAGE.parents[1] / row[1]).read_text(encoding="utf-8"), row
    assert len(re.findall(r"\| `(\w+)` in (\S+) \|", TEXT)) == 5


def test_the_examples_pass_the_conformance_tests_of_the_page(parts: Path) -> None:
    path = os.pathsep.join([str(parts), str(stepfront.SOURCE_ROOT)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_parts.py"]
    done = subprocess.run(
        command, cwd=parts, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
