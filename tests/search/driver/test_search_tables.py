"""What a finished search leaves: its tables, the costs of its plans, its progress, and points by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stepfront.errors import InputError
from stepfront.search.driver.write_tables import TableWriter, missing_uniform_plans
from stepfront.search.pareto import front_indices
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.search.step_tables.gap_table import read_gap_table
from stepfront.tables.parquet import read_table
from stepfront.tables.points import pick_point
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.variant import parse_runs

DESIGN_COLUMNS = {
    *("trial", "generation", "origin", "parents", "genome", "plan", "widths", "times", "solver", "fid"),
    *("features", "gflops", "latency_ms", "images", "noise_seed", "seconds", "worker", "state", "error"),
}


def test_the_gap_table_is_kept_with_the_search(searched: Path) -> None:
    directory, settings = find_search(searched)
    found = load_problem_of_search(settings, directory)
    kept = read_gap_table(directory, found.gap_inputs.key)
    assert kept is not None
    assert np.array_equal(found.gap, kept)
    np.testing.assert_allclose(kept, found.gap_inputs.measure(torch.device("cpu")), atol=1e-6)
    assert read_gap_table(directory, "of another supernet") is None
    assert read_gap_table(directory.parent, found.gap_inputs.key) is None


def test_no_table_is_written_that_could_be_ahead_of_the_study(tmp_path: Path) -> None:
    class Full:
        def sync(self) -> None:
            raise OSError("the disk is full")

    writer = TableWriter(None, Full(), {}, tmp_path, "")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="the disk is full"):
        writer.write()
    assert not list(tmp_path.iterdir())


def test_uniform_plans_that_come_late_join_the_baselines(searched: Path) -> None:
    """A first write may know two of them: after an interruption, with more steps, or where one is tried again."""
    trials = read_table(searched / "trials.parquet")
    uniform = trials.loc[trials["origin"] == "uniform", "trial"].tolist()
    assert len(uniform) >= 2
    kept = read_table(searched / "baselines.parquet")
    assert kept.loc[kept["method"] == "uniform", "trial"].tolist() == uniform
    first = missing_uniform_plans(trials.head(uniform[0] + 1), kept.head(0))
    assert first["trial"].tolist() == uniform[:1]
    late = missing_uniform_plans(trials, first)
    assert late["trial"].tolist() == uniform[1:]
    assert set(late["method"]) == {"uniform"}
    # A plan that `stepfront baselines` scored for itself is there already.
    assert missing_uniform_plans(trials, first.assign(trial=-1))["trial"].tolist() == uniform[1:]
    assert not len(missing_uniform_plans(trials, pd.concat([first, late])))


def test_tables_have_the_promised_columns_and_agree(searched: Path) -> None:
    trials = pd.read_parquet(searched / "trials.parquet")
    front = pd.read_parquet(searched / "front.parquet")
    assert set(trials.columns) >= DESIGN_COLUMNS
    assert {*DESIGN_COLUMNS, "fid_confirmed", "fid_low", "fid_high", "confirm_images", "confirm_seeds"} <= set(
        front.columns
    )
    assert len(trials) == trials["plan"].nunique() == 9
    assert (trials["state"] == "complete").all()
    assert list(trials["trial"]) == list(range(9))
    for _, row in trials.iterrows():
        assert tuple(row["widths"]) == parse_runs(row["plan"])
        assert len(row["times"]) == len(row["widths"]) == 6
    scores = trials[["fid", "gflops"]].to_numpy()
    assert set(front["trial"]) == set(trials["trial"].iloc[front_indices(scores)])
    labels = ",".join(front["label"])
    assert all(name in labels for name in ("knee", "best", "cheapest"))


def test_costs_are_those_of_the_plan(searched: Path) -> None:
    trials = pd.read_parquet(searched / "trials.parquet")
    macs = {row["width"]: row["macs"] for row in json.loads((searched / "costs.json").read_text())["widths"]}
    for _, row in trials.iterrows():
        assert row["gflops"] == pytest.approx(2e-9 * sum(macs[w] for w in row["widths"]))
        assert row["latency_ms"] > 0


def test_progress_grows(searched: Path) -> None:
    progress = pd.read_parquet(searched / "progress.parquet")
    assert (np.diff(progress["hypervolume"]) >= 0).all()
    assert (np.diff(progress["best_fid"]) <= 0).all()
    assert list(progress["evaluation"]) == list(range(1, 10))


def test_points_by_name_number_and_query(searched: Path) -> None:
    front = read_table(searched / "front.parquet")
    assert pick_point(front, "best")["fid"] == front["fid"].min()
    assert pick_point(front, "cheapest")["gflops"] == front["gflops"].min()
    assert pick_point(front, str(front["trial"].iloc[0]))["trial"] == front["trial"].iloc[0]
    bound = float(front["fid"].median())
    assert pick_point(front, f"fid<={bound}")["gflops"] == front.loc[front["fid"] <= bound, "gflops"].min()
    for bad in ("nonsense", "99999", "fid<=-1", "fid<=x"):
        with pytest.raises(InputError):
            pick_point(front, bad)
    row = front.iloc[0]
    assert plan_of_row(row) == Plan(tuple(row["times"]), tuple(row["widths"]), row["solver"])
