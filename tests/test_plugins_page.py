"""docs/plugins.md: its settings are valid, and its examples pass its own tests, as a stranger would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

import stepfront
from benchmarks.tracking import made_up_search
from stepfront.environment import SOURCE_ROOT
from stepfront.plugins import FAMILIES, FEATURES, FORMATS, OBSERVERS, PROXIES, SCORES, SOLVERS
from stepfront.search.config import settings_from
from stepfront.search.observers.observing import Observers
from stepfront.search.problem.evaluator_parts import worker_parts
from stepfront.search.problem.load import load_problem
from stepfront.trainers.evaluator import Evaluator
from stepfront.trainers.inference.cost import count_width

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plugins.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the files of the page, as their first lines name them."""
    folder = tmp_path_factory.mktemp("plugins")
    for block in blocks("python"):
        path = folder / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(block)
    return folder


def test_the_settings_of_the_page_are_valid() -> None:
    given, scores = blocks("yaml")
    settings = settings_from(yaml.safe_load(given))
    assert settings.sampler.solver == "my_parts.solvers:ddim_half"
    uses = [score.use for score in settings_from(yaml.safe_load(scores)).scores]
    assert uses == ["objective", "objective", "confirm"]


def test_the_page_has_every_kind_of_part() -> None:
    for registry in (FAMILIES, FORMATS, FEATURES, SOLVERS, PROXIES, SCORES, OBSERVERS):
        assert f"`{registry.group}`" in TEXT
    for row in re.findall(r"\| `(\w+)` in (\S+) \|", TEXT):
        assert f"class {row[0]}(" in (PAGE.parents[1] / row[1]).read_text(encoding="utf-8"), row
    assert len(re.findall(r"\| `(\w+)` in (\S+) \|", TEXT)) == 7


SMALL = [
    *("network.base=8", "network.widths=[0.5, 1.0]", "training.steps=3", "training.batch=8", "training.warmup=1"),
    *("sampler.steps=4", "tracking.uri=null", "features.examine=skip"),
]


def test_the_parts_of_the_page_train_a_supernet_and_score_a_plan(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(parts)
    given = blocks("yaml")[0]
    data = tmp_path / "digits.csv"
    data.write_text("\n".join(f"{n % 3}," + ",".join(str((n * i) % 256) for i in range(64)) for n in range(24)))
    settings = settings_from(yaml.safe_load(given), [*SMALL, f"data.path={data}", f"directory={tmp_path}"])
    stepfront.train(settings, progress=False)
    problem = load_problem(settings)
    costs = {width: count_width(problem.card.network, 1, 8, width) for width in (0.5, 1.0)}
    result = Evaluator(worker_parts(problem, costs))(problem.uniform_plan(0.5), 16, noise_seed=0)
    assert np.isfinite(result.fid)
    assert 0 < result.scores["ink"] < 1
    assert (result.features, result.error) == ("my_parts.features:Patches", "")
    assert problem.card.network.family == "my_parts.families:build_plain"


def test_the_observers_of_the_page_are_shown_a_search(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any]] = []
    run = SimpleNamespace(
        log=lambda row: calls.append(("log", row)), finish=lambda: calls.append(("finish", None)), summary={}
    )
    wandb = SimpleNamespace(init=lambda **given: calls.append(("init", given)) or run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)  # a stand-in: the service is not asked
    monkeypatch.syspath_prepend(parts)
    monkeypatch.chdir(tmp_path)
    names = ["my_parts.observers:TensorBoard", "my_parts.observers:WeightsAndBiases"]
    search = made_up_search(5)
    with Observers(settings_from({"tracking": {"observers": names}})) as observers:
        observers.update(search)
    (events,) = (tmp_path / "tensorboard" / str(search.facts["search_id"])).iterdir()
    written = events.read_bytes()
    assert (written.count(b"gflops"), written.count(b"fid")) == (5, 5)
    assert calls[0][1]["id"] == search.facts["search_id"]
    assert [row["trial"] for kind, row in calls if kind == "log"] == search.trials["trial"].tolist()
    assert (calls[-1][0], len(run.summary["front"])) == ("finish", len(search.front))


def test_the_examples_pass_the_conformance_tests_of_the_page(parts: Path) -> None:
    path = os.pathsep.join([str(parts), str(SOURCE_ROOT)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_parts.py"]
    done = subprocess.run(
        command, cwd=parts, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
