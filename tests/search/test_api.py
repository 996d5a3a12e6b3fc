"""The Python API: what `import stepfront` gives, how heavy it is, and the path from settings to a sampled point."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

import stepfront
from tests.search.conftest import TINY, tiny_settings


def test_the_import_is_light_and_names_what_there_is() -> None:
    code = (
        "import sys, stepfront\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'numpy', 'rich', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), dir(stepfront) == stepfront.__all__)\n"
        "print([getattr(stepfront, name) is not None for name in stepfront.__all__])\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()
    assert lines == ["[] True", str([True] * len(stepfront.__all__)), "[]"]


def test_no_function_hides_a_sub_package() -> None:
    assert set(stepfront.__all__).isdisjoint(path.name for path in Path(stepfront.__file__).parent.iterdir())


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'stepfront' has no attribute 'serach'"):
        stepfront.serach  # noqa: B018


def test_settings_of_a_file_take_overrides(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    assert stepfront.load_settings(tmp_path / "tiny.yaml", ["budget.trials=40"]).budget.trials == 40
    with pytest.raises(stepfront.InputError, match="no settings file"):
        stepfront.load_settings(tmp_path / "gone.yaml")


def test_from_a_supernet_to_the_images_of_a_point(fresh: Path, tmp_path: Path) -> None:
    settings = tiny_settings(fresh, "budget.trials=5")
    printed = io.StringIO()
    supernet = stepfront.train(settings, progress=Console(file=printed))
    assert not supernet.new
    assert sorted(supernet.held_out_losses) == [0.25, 0.5, 1.0]
    assert "reading the images" in printed.getvalue()

    calls: list[tuple[int, int]] = []
    search = stepfront.run_search(settings, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 5) for done in range(1, 6)]
    assert len(search.trials()) == 5
    assert list(search.front()["gflops"]) == sorted(search.front()["gflops"])
    assert (search.directory / "report.html").exists()  # as the verb does

    again = stepfront.open_search(fresh / "tiny")
    assert "cheapest" in again.point("cheapest")["label"].split(",")
    images = again.sample("knee", images=3, seed=1)
    assert images.shape == (3, 1, 8, 8)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, search.sample("knee", images=3, seed=1))
    assert again.labelled_sample("knee", images=3, seed=1)[1] is None
    assert again.facts["evaluations"] == 5
    assert again.export("best", out=tmp_path / "out")["plan"] == again.point("best")["plan"]
    assert again.report() == search.directory / "report.html"


def test_what_is_no_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(stepfront.InputError, match="no search in"):
        stepfront.open_search(tmp_path)


def test_a_quiet_training_prints_nothing(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stepfront.train(tiny_settings(fresh), progress=False)
    assert capsys.readouterr() == ("", "")
