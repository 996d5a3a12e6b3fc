"""The examples and the notebook run, in small form and in this process."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepfront
from stepfront.trainers.config import DataSettings
from stepfront.trainers.latents.load_images import load_images
from tests.search.at_once import workers_at_once

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run_here(script: str, folder: Path) -> str:
    """Run an example in this process, with workers that need no processes, and return what it prints."""
    with pytest.MonkeyPatch.context() as patch, workers_at_once(), contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.chdir(folder)
        patch.syspath_prepend(EXAMPLES)
        patch.setattr(sys, "argv", [script, "--small"])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    return printed.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which quickstart.py has run."""
    folder = tmp_path_factory.mktemp("examples")
    printed = run_here("quickstart.py", folder)
    assert "knee" in printed
    return folder


def test_the_quickstart_leaves_a_search_and_images(finished: Path) -> None:
    search = stepfront.open_search(finished / "runs" / "quickstart-small")
    assert len(search.trials()) == 10
    assert (search.settings.run_directory / "knee.png").exists()
    assert (search.directory / "report.html").exists()


def test_a_users_solver_is_searched_with(finished: Path) -> None:
    lines = run_here("own_solver.py", finished).splitlines()
    best = [line for line in lines if "GFLOPs:" in line]
    assert [line.split()[0] for line in best] == ["unipc_2", "own_solver:ddim_half"]
    search = stepfront.open_search(finished / "runs" / "own-solver-small")
    assert set(search.trials()["solver"]) == {"own_solver:ddim_half"}


def test_a_users_scores_are_objectives_and_confirmed(finished: Path) -> None:
    run_here("own_scores.py", finished)
    search = stepfront.open_search(finished / "runs" / "own-scores-small")
    front = search.front()
    assert search.facts["objectives"] == ["fid", "gflops", "perceptual", "accuracy"]
    assert search.trials()["accuracy"].between(0, 1).all()
    written = ["perceptual", "perceptual_confirmed", "accuracy_low", "psnr_confirmed", "psnr_high"]
    assert front[written].notna().all().all()
    assert "psnr" in (search.directory / "report.html").read_text(encoding="utf-8")


def test_an_autoencoder_is_trained_that_data_takes(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    assert "dB on held-out images" in run_here("train_autoencoder.py", tmp_path)
    data = load_images(
        DataSettings(size=16, autoencoder=str(tmp_path / "data" / "fashion-autoencoder"), limit=64, cache=str(tmp_path))
    )
    assert data.network_shape == (4, 4, 4)
    z = data.clean(np.arange(len(data.images)))
    assert abs(float(z.mean())) < 0.2
    assert float(z.std()) == pytest.approx(1, abs=0.2)


def test_every_cell_of_the_notebook_runs(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    cells = json.loads((EXAMPLES / "front.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in code:
        small = cell.replace("runs/quickstart", "runs/quickstart-small")
        exec(compile(small, "front.ipynb", "exec"), names)
    assert names["images"].shape == (16, 1, 8, 8)
    assert names["images"].dtype == np.uint8
    assert list(names["widths"].index) == list(names["front"]["trial"])
    assert names["figure"].data


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads((EXAMPLES / "front.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
