"""The baselines of a search, at equal evaluations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from stepfront.errors import InputError
from stepfront.search.problem.baseline_plans import full_width_samplers
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring import write_pause
from stepfront.search.scoring.baselines import METHODS, _BaselinesTable, run_baselines
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import TRIAL_COLUMNS
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation
from tests.made_up_run import write_made_up_run
from tests.search.cli.test_cli import call
from tests.search.conftest import tiny_settings


def test_baselines_at_equal_evaluations(searched_copy: Path) -> None:
    directory = searched_copy
    run_baselines(directory, METHODS, None)
    baselines = pd.read_parquet(directory / "baselines.parquet")
    methods = pd.read_parquet(directory / "methods.parquet").set_index("method")
    assert set(methods.index) == {"search", *METHODS}
    assert (methods["evaluations"] <= 9).all()
    assert (methods["share"] <= 1 + 1e-12).all()
    assert set(baselines["noise_seed"]) == {0}
    few = baselines[baselines["method"] == "fewer_steps"]
    assert sorted(len(w) for w in few["widths"]) == [1, 2, 3, 4, 5, 6]
    assert all(set(w) == {1.0} for w in few["widths"])
    cuts = baselines[baselines["method"] == "one_cut"]["plan"]
    assert all(len(plan.split()) == 2 for plan in cuts)
    versus = pd.read_parquet(directory / "versus.parquet")
    assert {*versus["features"], *methods["features"], *baselines["features"]} == {"classifier"}
    for _, row in versus.iterrows():
        affordable = baselines[baselines["gflops"] <= row["gflops"] * (1 + 1e-9)]
        assert row["baseline_fid"] == pytest.approx(affordable["fid"].min())
    with pytest.raises(InputError, match="unknown baseline 'nonsense'; possible: samplers, uniform, one_cut"):
        run_baselines(directory, ["nonsense"], None)


@pytest.mark.parametrize("methods", ["", " , ", "nonsense"])
def test_wrong_methods_name_those_of_the_space(methods: str, tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    run = write_made_up_run(tmp_path, "made-up")
    code, _, error = call(monkeypatch, capsys, "baselines", str(run), "--methods", methods)
    assert code == 2
    assert error.endswith("possible: samplers, uniform, one_cut, two_cut, monotone, random, gap, fewer_steps, ddsm\n")


def test_an_interrupted_method_keeps_what_it_has_scored(tmp_path: Path) -> None:
    plans, asked = [Plan((3.0, 2.0, 1.0), (width,) * 3) for width in (0.25, 0.5, 1.0)], []
    problem: Any = SimpleNamespace(settings=tiny_settings(tmp_path, "evaluation.constraints=['gflops <= 2.0']"))

    class Interrupted:
        """Scores the second of the plans that it is asked for, and is interrupted."""

        def score(self, jobs: Any, images: int, on_result: Any, on_score: Callable[[int, Evaluation], None]) -> None:
            asked.append([plan.runs for plan, _ in jobs])
            on_score(1, Evaluation(5.0, 3.0, 1.0, "classifier", images, 0))
            raise KeyboardInterrupt

    for _ in range(2):
        scorer: Any = Interrupted()
        table = _BaselinesTable(problem, {}, tmp_path, pd.DataFrame(columns=list(TRIAL_COLUMNS)), scorer)
        with pytest.raises(KeyboardInterrupt):
            table._rows("random", plans, lambda done, total: None)
    assert asked == [["3x0.25", "3x0.50", "3x1.00"], ["3x0.25", "3x1.00"]]
    kept = read_table(tmp_path / "baselines.parquet")
    assert kept["plan"].tolist() == ["3x0.50", "3x1.00"]
    assert set(kept["method"]) == {"random"}
    assert set(kept["violation"]) == {1.0}


def test_samplers_are_written_with_their_names_as_their_scores_arrive(
    searched_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_pause, "LEAST_PAUSE", 0.0)
    problem = load_problem_of_search(find_search(searched_copy)[1], searched_copy)
    (searched_copy / "baselines.parquet").unlink()
    names = [sampler.name for sampler in full_width_samplers(problem)]
    path, written = searched_copy / "baselines.parquet", list[list[str]]()

    class Slow:
        """Scores the last plan and the first, and is interrupted."""

        def score(self, jobs: Any, images: int, on_result: Any, on_score: Callable[[int, Evaluation], None]) -> None:
            for i in (len(jobs) - 1, 0):
                on_score(i, Evaluation(5.0, 3.0, 1.0, "classifier", images, 0))
                written.append(read_table(path)["sampler"].tolist())
            raise KeyboardInterrupt

    none, scorer = pd.DataFrame(columns=list(TRIAL_COLUMNS)), cast(Any, Slow())
    table = _BaselinesTable(problem, {}, searched_copy, none, scorer)
    with pytest.raises(KeyboardInterrupt):
        table.add_samplers(lambda *told: None)
    assert names[-1]
    assert written[0] == [names[-1]]
    assert read_table(path)["sampler"].tolist() == [names[0], names[-1]]
