"""After a finished search: the same command, more budget, and a search that begins with its front."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from stepfront.errors import InputError
from stepfront.search.config import save_settings
from stepfront.search.driver.search import run_search
from stepfront.search.earlier.found_searches import auto_settings
from stepfront.search.earlier.kept_tables import warm_settings
from stepfront.search.extending.extended_settings import extended_settings
from stepfront.search.problem.load import load_problem
from stepfront.search.problem.plan_source import make_plan_features
from stepfront.search.records.run_directory import resume_settings
from stepfront.search.storage.lock import directory_lock
from stepfront.tables.facts import read_facts
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.schema import SETTINGS_FILE, TRIALS
from tests.search.conftest import Silent, copy_of_search, do_search, tiny_settings


@pytest.fixture(scope="module")
def extended(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the finished search that has gone on for five trials."""
    directory = copy_of_search(searched, tmp_path_factory.mktemp("extended"))
    return run_search(extended_settings(directory, 5, None, None), False, Silent(), lambda text: None)


def test_a_finished_search_is_not_repeated(searched_copy: Path, tmp_path: Path) -> None:
    before = pd.read_parquet(searched_copy / "trials.parquet")
    assert do_search(tmp_path) == searched_copy
    pd.testing.assert_frame_equal(pd.read_parquet(searched_copy / "trials.parquet"), before)


def test_a_search_that_began_from_another_goes_on_when_that_is_gone(extended: Path, tmp_path: Path) -> None:
    parent = copy_of_search(extended, tmp_path)
    child = tiny_settings(tmp_path, "name=child", f"supernet={parent.parent / 'supernet'}", "budget.trials=6")
    settings = warm_settings(child, [parent])
    directory = run_search(settings, False, Silent(), lambda text: None)
    trials = pd.read_parquet(directory / "trials.parquet")
    assert f"front:{parent}" in set(trials["origin"])
    (worth,) = read_facts(directory)["earlier"]
    assert (worth["search"], worth["trials"], worth["after"]) == (str(parent), 14, [4, 6])
    assert all(0 <= weight <= 1 for weight in worth["weight"])
    earlier = make_plan_features(load_problem(settings)).earlier
    assert len(earlier) == 1  # what the parent's 14 trials taught is handed over with its front
    said: list[str] = []
    longer = child.model_copy(update={"budget": child.budget.model_copy(update={"trials": 7})})
    run_search(longer, False, Silent(), said.append)  # without `--from`
    assert f"continues with the earlier search {parent.parent.name}" in said
    assert read_facts(directory)["earlier"][0]["search"] == str(parent)
    shutil.rmtree(parent)
    run_search(extended_settings(directory, 2, None, None), False, Silent(), lambda text: None)
    assert len(pd.read_parquet(directory / "trials.parquet")) == 9


def test_earlier_searches_are_found_by_themselves(extended: Path, tmp_path: Path) -> None:
    parent = copy_of_search(extended, tmp_path)
    child = tiny_settings(tmp_path, "name=child", f"supernet={parent.parent / 'supernet'}")
    with directory_lock(parent):  # a running search has its best plans to come
        assert auto_settings(child)[0] == child
    settings, line = auto_settings(child)
    assert line == f"starts from {parent.parent.name} (14 trials), found in {tmp_path}"
    assert settings == warm_settings(child, [parent])
    # A search that was begun keeps what it began with, whatever is found later.
    settings.search_directory.mkdir(parents=True)
    save_settings(settings, settings.search_directory / SETTINGS_FILE)
    shutil.rmtree(parent)
    assert auto_settings(child)[0] == settings
    assert auto_settings(child, fresh=True)[0] == child
    assert "it starts without one" in auto_settings(child, fresh=True)[1]


def test_what_no_search_can_start_from_is_refused_in_one_line(searched: Path, tmp_path: Path) -> None:
    child = tiny_settings(tmp_path, "name=child")
    with pytest.raises(InputError, match="no search in"):
        warm_settings(child, [tmp_path])
    with pytest.raises(InputError, match="is the search itself; to continue it: stepfront resume"):
        warm_settings(resume_settings(searched), [searched])
    parent = copy_of_search(searched, tmp_path)
    trials = read_table(parent / TRIALS)
    write_table(trials.assign(plan="10x1.00u"), parent / TRIALS)
    with pytest.raises(InputError, match="none of its trials can be used"):
        warm_settings(child, [parent])
    write_table(trials.assign(widths=[[0.0, *row[1:]] for row in trials["widths"]]), parent / TRIALS)
    with pytest.raises(InputError, match="all its plans skip steps"):
        warm_settings(tiny_settings(tmp_path, "name=child", "space.skip=false"), [parent])


def test_a_finished_search_goes_on_with_more_budget(searched: Path, extended: Path) -> None:
    after = pd.read_parquet(extended / "trials.parquet")
    assert len(after) == 14
    pd.testing.assert_frame_equal(after[:9], pd.read_parquet(searched / "trials.parquet"))
    assert resume_settings(extended.parent).budget.trials == 14
    with pytest.raises(InputError, match="possible: --trials, --minutes, --tflops"):
        extended_settings(extended.parent, None, None, None)


def test_a_search_begins_with_the_front_of_an_earlier_one(searched: Path, fresh: Path) -> None:
    directory = do_search(
        fresh, f"initial_plans={{uniform: 3, 'front:{searched}': 4}}", "space.stages=6", "budget.trials=6"
    )
    trials = pd.read_parquet(directory / "trials.parquet")
    earlier = set(pd.read_parquet(searched / "front.parquet")["plan"])
    own = trials[trials["origin"] == f"front:{searched}"]
    assert len(own) >= 1
    assert set(own["plan"]) <= earlier
