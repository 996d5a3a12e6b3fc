"""Extend a real search to a larger space: scores and numbers stay, it is killed half-way, and doctor finds it whole."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from stepfront.errors import InputError
from stepfront.search.checks.integrity import check_search, repair_search
from stepfront.search.config import RunSettings
from stepfront.search.driver.search import run_search
from stepfront.search.extending.extended_settings import extended_settings
from stepfront.search.problem.costs import read_costs
from stepfront.search.records.run_directory import resume_settings
from stepfront.search.study.ledger import Ledger
from stepfront.tables.facts import read_facts
from tests.search.conftest import Silent, copy_of_search

CHANGES = ["space.variants=[0.25, 0.5, 1.0, 1.0r]", "space.stages=6"]
KEPT = ["trial", "generation", "origin", "plan", "fid", "gflops", "latency_ms", "elapsed", "worker"]


def extend(settings: RunSettings) -> Path:
    return run_search(settings, False, Silent(), lambda text: None, extend=True)


def trials_of(directory: Path) -> pd.DataFrame:
    return pd.read_parquet(directory / "trials.parquet")


@pytest.fixture(scope="module")
def extended(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the search that was extended by six trials; its driver was killed before the study knew."""

    def killed(self: Ledger) -> bool:
        raise KeyboardInterrupt

    directory = copy_of_search(searched, tmp_path_factory.mktemp("extended"))
    settings = extended_settings(directory, 6, None, None, CHANGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "enter_space", killed)
        with pytest.raises(KeyboardInterrupt):
            extend(settings)
    return run_search(resume_settings(directory), False, Silent(), lambda text: None)


def test_scores_stay_and_the_larger_space_is_searched(searched: Path, extended: Path) -> None:
    before, after = trials_of(searched), trials_of(extended)
    assert len(after) == 15
    pd.testing.assert_frame_equal(after[:9][KEPT], before[KEPT])
    assert set(after["genome"].map(len)) == {6}
    # Runs of a plan so far have two steps per stage.
    new = [run for plan in after["plan"][9:] for run in plan.split()]
    assert any("r" in run or int(run.partition("x")[0]) % 2 for run in new)
    assert after["plan"].nunique() == 15
    assert after["latency_ms"].notna().all()
    costs, old = read_costs(extended)[1.0], read_costs(searched)[1.0]
    assert costs.reuse_latency_ms is not None
    assert costs.latency_ms == old.latency_ms
    facts = read_facts(extended)
    assert facts["variants"] == ["0.25", "0.50", "1.00r", "1.00"]
    assert [space["below"] for space in facts["earlier_spaces"]] == [9]
    assert [found.detail for found in check_search(extended.parent) if not found.usable] == []


def test_it_continues_as_any_search_and_its_study_can_be_rebuilt(extended: Path, tmp_path: Path) -> None:
    directory = copy_of_search(extended, tmp_path)
    run_search(extended_settings(directory, 2, None, None), False, Silent(), lambda text: None)
    trials = trials_of(directory)
    pd.testing.assert_frame_equal(trials[:15], trials_of(extended))
    (directory / "study.db").unlink()
    for rest in directory.glob("study.db-*"):
        rest.unlink()
    repair_search(directory.parent)
    pd.testing.assert_frame_equal(trials_of(directory)[KEPT], trials[KEPT])
    assert [found.detail for found in check_search(directory.parent) if not found.usable] == []


def test_a_space_without_some_plan_is_refused_and_nothing_is_written(searched: Path, tmp_path: Path) -> None:
    directory = copy_of_search(searched, tmp_path)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and "lock" not in path.name}
    settings = extended_settings(directory, 6, None, None, ["space.stages=4"])
    with pytest.raises(InputError, match=r"of the 9 plans of this search are none of the space that was given") as no:
        extend(settings)
    assert "\n" not in str(no.value)
    assert {path: path.read_bytes() for path in before if path.exists()} == before
    larger = extended_settings(directory, 6, None, None, CHANGES)
    with pytest.raises(InputError, match="`stepfront extend SEARCH --set` continues in a larger space"):
        run_search(larger, False, Silent(), lambda text: None)  # as `stepfront search CONFIG` would
