"""Searches at the edge: one trial, all trials on the front, no variance, equal plans, nothing measured but FID."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.tracking import made_up_search
from stepfront.dashboards.figures.picture import save_front_picture
from stepfront.dashboards.report import write_comparison, write_report
from stepfront.dashboards.terminal.front_table import front_listing
from stepfront.files import write_json
from stepfront.search.objectives import Objectives
from stepfront.search.records.front import front_table, with_confirmation
from stepfront.search.records.history import series_table
from stepfront.search.scoring.proxy_agreement import correlations
from stepfront.search.tracking.search_runs import run_note
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import FRONT, PROGRESS, PROXY_SCORES, TRIALS
from stepfront.tables.search_tables import Snapshot, read_tables

OBJECTIVES = Objectives(("fid", "gflops"))


def first_alone(trials: pd.DataFrame) -> pd.DataFrame:
    return trials.iloc[:1]


def all_on_the_front(trials: pd.DataFrame) -> pd.DataFrame:
    count = len(trials)
    return trials.assign(fid=[10.0 + i for i in range(count)], gflops=[2.0 - i / count for i in range(count)])


def no_variance(trials: pd.DataFrame) -> pd.DataFrame:
    return trials.assign(fid=10.0, gflops=1.0, latency_ms=1.0, paired=0.0)


def equal_plans(trials: pd.DataFrame) -> pd.DataFrame:
    first = trials.iloc[0]
    same = pd.DataFrame([first] * len(trials)).assign(trial=range(len(trials)))
    return same.reset_index(drop=True)


def no_latency(trials: pd.DataFrame) -> pd.DataFrame:
    return trials.assign(latency_ms=math.nan, paired=math.nan)


def one_complete(trials: pd.DataFrame) -> pd.DataFrame:
    failed = trials["trial"] > 0
    return trials.assign(
        state=["failed" if one else "complete" for one in failed],
        fid=trials["fid"].where(~failed),
        error=["a worker died" if one else "" for one in failed],
    )


def perfect(trials: pd.DataFrame) -> pd.DataFrame:
    return trials.assign(fid=0.0)


KINDS = [first_alone, all_on_the_front, no_variance, equal_plans, no_latency, one_complete, perfect]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def search(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the directory of such a search."""
    change: Callable[[pd.DataFrame], pd.DataFrame] = request.param
    found = made_up_search(12)
    trials = change(found.trials.assign(state="complete"))
    complete = trials[trials["state"] == "complete"]
    progress = found.progress.iloc[: len(complete)].assign(trial=complete["trial"].to_numpy())
    proxies = pd.concat(
        [
            complete[["trial"]].assign(proxy=name, score=complete["fid"], features="random")
            for name in ("gap", "model", "fid")
        ]
    )
    directory = tmp_path / "search"
    front = front_table(trials, OBJECTIVES)
    for name, table in ((TRIALS, trials), (FRONT, front), (PROGRESS, progress), (PROXY_SCORES, proxies)):
        write_table(table.reset_index(drop=True), directory / name)
    write_json(directory / "search.json", dict(found.facts) | {"proxy_tau": correlations(proxies)})
    return directory


def test_report_pictures_comparison_and_list_are_made(search: Path, tmp_path: Path) -> None:
    tables = read_tables(search)
    text = write_report(search).read_text()
    assert "NaN" not in text.partition("<script>")[0]
    for suffix in ("svg", "png"):
        assert save_front_picture(tables, search / f"front.{suffix}").stat().st_size > 1000
    assert write_comparison([search, search], tmp_path / "compare.html").exists()
    assert front_listing(tables.front, tables.full.gflops).row_count == len(tables.front) > 0


def test_mlflow_gets_a_history_and_a_note(search: Path) -> None:
    tables = read_tables(search)
    snapshot = Snapshot(tables.trials, tables.progress, tables.front, tables.facts)
    assert len(series_table(snapshot)) == len(tables.progress)
    assert str(tables.front["plan"].iloc[0]) in run_note(snapshot)


def test_a_confirmation_of_equal_scores_has_no_width(search: Path) -> None:
    front = read_tables(search).front
    confirmed = pd.DataFrame(
        [
            {"plan": plan, "sampler": "", "noise_seed": seed, "images": 64, "fid": 10.0}
            for plan in front["plan"].unique()
            for seed in (1, 2)
        ]
    )
    found = with_confirmation(front, confirmed, OBJECTIVES)
    assert (found["fid_low"] == 10.0).all()
    assert (found["fid_high"] == 10.0).all()
    assert found["belongs"].any()
    assert "cheapest" in ",".join(found["label"])
