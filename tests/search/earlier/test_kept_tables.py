"""What a search keeps of those that it started from: the same tables after a move, and gaps where they belong."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stepfront.errors import InputError
from stepfront.files import write_json
from stepfront.search.config import RunSettings, save_settings, settings_from
from stepfront.search.earlier.kept_tables import (
    EarlierSteps,
    begun_settings,
    earlier_names,
    keep_earlier,
    read_steps,
    warm_settings,
)
from stepfront.search.records.layout_version import FORMAT
from stepfront.search.records.run_directory import find_search, resume_settings
from stepfront.search.step_tables.gap_table import GAP_FILE, write_gap_table
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import FACTS_FILE, FRONT, SETTINGS_FILE, TRIALS
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.variant import Variant, parse_variants
from tests.search.conftest import tiny_settings
from tests.search.earlier.test_earlier_models import write_search

STEPS = 6


def tables_in(place: Path) -> list[pd.DataFrame]:
    return [read_table(place / name) for name in (TRIALS, FRONT)]


@pytest.mark.parametrize("then", ["continued", "deleted"])
def test_a_moved_folder_of_runs_keeps_the_tables_that_its_search_began_with(tmp_path: Path, then: str) -> None:
    runs = tmp_path / "runs"
    first, second = (runs / name / "search" for name in ("first", "second"))
    for place in (first, second):
        write_search(place, ["6x0.50", "6x1.00"])
    write_search(second, ["6x0.25"])
    fronts = f"initial_plans={{'front:{first}': 4, uniform: 2, 'front:{second}': 4}}"
    settings = tiny_settings(runs, "name=own", fronts)
    kept = [tables_in(place) for place in keep_earlier(settings, settings.search_directory).values()]
    save_settings(settings, settings.search_directory / SETTINGS_FILE)
    for number in range(2):
        moved = tmp_path / f"moved-{number}" / "runs"
        moved.parent.mkdir()
        shutil.move(runs, moved)
        runs = moved
        if then == "continued":
            write_search(runs / "first" / "search", ["2x0.50 4x1.00"] * 3)
        else:
            shutil.rmtree(runs / "first", ignore_errors=True)
        own = runs / "own" / "search"
        settings = resume_settings(own)
        assert f"front:{runs / 'first' / 'search'}" in settings.initial_plans
        for _ in range(2):  # as often as it is opened, and after the settings are written
            now = [tables_in(place) for place in keep_earlier(settings, own).values()]
            for one, other in zip(chain(*now), chain(*kept), strict=True):
                pd.testing.assert_frame_equal(one, other)
            save_settings(settings, own / SETTINGS_FILE)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder of runs with two searches that have trials, `first` and `second`."""
    for name in ("first", "second"):
        settings = tiny_settings(tmp_path / "runs", f"name={name}")
        write_search(settings.search_directory, ["6x0.50", "6x1.00"])
        save_settings(settings, settings.search_directory / SETTINGS_FILE)
        write_json(settings.search_directory / FACTS_FILE, {"format": FORMAT})
    return tmp_path / "runs"


def begin(runs: Path, *earlier: str) -> RunSettings:
    """Begin the search `own` from earlier ones, and return its settings without them."""
    cold = tiny_settings(runs, "name=own")
    save_settings(warm_settings(cold, [runs / name for name in earlier]), cold.search_directory / SETTINGS_FILE)
    return cold


@pytest.mark.parametrize("named", [[], ["first"], ["second", "first"]])
def test_a_search_continues_with_all_earlier_searches_that_it_was_begun_with(runs: Path, named: list[str]) -> None:
    cold = begin(runs, "first", "second")
    continued = begun_settings(warm_settings(cold, [runs / name for name in named]))
    assert continued == warm_settings(cold, [runs / "first", runs / "second"])
    assert list(continued.initial_plans) == list(warm_settings(cold, [runs / "first", runs / "second"]).initial_plans)
    assert earlier_names(continued) == "first, second"


def test_what_a_search_was_begun_with_may_be_gone_unless_it_starts_over(runs: Path) -> None:
    cold = begin(runs, "first")
    begun = warm_settings(cold, [runs / "first"])
    shutil.rmtree(runs / "first")
    for name in ("first", "first/search"):
        assert begun_settings(warm_settings(cold, [runs / name])) == begun
        with pytest.raises(InputError, match="no search in"):
            warm_settings(cold, [runs / name], fresh=True)


def test_a_search_keeps_the_order_of_its_first_generation(runs: Path) -> None:
    first = f"front:{runs / 'first' / 'search'}"
    begun = tiny_settings(runs, "name=own", f"initial_plans={{uniform: 3, gap: 2, '{first}': 4}}")
    save_settings(begun, begun.search_directory / "settings.yaml")
    assert list(begun_settings(begun).initial_plans.items()) == [("uniform", 3), ("gap", 2), (first, 4)]
    cold = tiny_settings(runs, "name=own", "initial_plans={snr: 1, uniform: 5}")
    assert list(begun_settings(cold).initial_plans.items()) == [("uniform", 5), (first, 4), ("snr", 1)]


def test_a_new_search_starts_from_what_its_settings_name(runs: Path) -> None:
    cold = tiny_settings(runs, "name=own")
    assert begun_settings(cold) == cold
    warm = warm_settings(cold, [runs / "first"])
    assert begun_settings(warm) == warm


@pytest.mark.parametrize(("begun", "says"), [([], "no earlier search"), (["first"], "the earlier search first")])
def test_a_search_that_was_begun_takes_no_other_earlier_search(runs: Path, begun: list[str], says: str) -> None:
    """Its trials so far would be said to have learnt from it."""
    cold = begin(runs, *begun)
    with pytest.raises(InputError) as refused:
        begun_settings(warm_settings(cold, [runs / "second"]))
    assert str(refused.value) == (
        f"this search was begun with {says}, so it can't start from second; continue it as it is (stepfront resume "
        f"{runs / 'own'}), choose another name, or start over with --fresh"
    )


def test_a_moved_search_continues_with_its_earlier_searches_where_they_lie_now(runs: Path) -> None:
    begin(runs, "first")
    moved = runs.parent / "moved"
    shutil.move(runs, moved)
    cold = tiny_settings(moved, "name=own")
    for given in (cold, warm_settings(cold, [moved / "first"])):
        assert begun_settings(given) == warm_settings(cold, [moved / "first"])


def steps_of(earlier: Path, place: Path, *overrides: str) -> EarlierSteps:
    """Return what a search keeps of the steps of an earlier one, whose settings are changed."""
    changed = settings_from(find_search(earlier)[1].model_dump(mode="json"), list(overrides))
    save_settings(changed, earlier / SETTINGS_FILE)
    settings = tiny_settings(place, "name=own", f"initial_plans={{'front:{earlier}': 4}}")
    (kept,) = keep_earlier(settings, settings.search_directory).values()
    steps = read_steps(kept)
    assert steps is not None
    return steps


GAP = np.arange(3.0 * STEPS).reshape(STEPS, 3)
SCHEDULE = noise_schedule(tiny_settings(Path("runs")).diffusion)


def test_an_earlier_gap_belongs_to_the_times_and_the_widths_that_it_was_measured_at(
    searched_copy: Path, tmp_path: Path
) -> None:
    times, columns = (990.0, 800.0, 400.0, 100.0, 30.5, 2.0), parse_variants("1x0.50 1x0.50r 1x1.00")
    inputs: Any = SimpleNamespace(key="any", times=times, columns=columns)
    write_gap_table(searched_copy, inputs, GAP)
    steps = steps_of(searched_copy, tmp_path / "of", "space.variants=[0.5, 0.5r, 1.0]", "space.skip=even")
    np.testing.assert_array_equal(steps.gap, GAP[:, [0, 2]])
    np.testing.assert_allclose(steps.gap_half_log_snr, SCHEDULE.half_log_snr(np.array(times)))
    assert steps.widths.tolist() == [0.5, 1.0]
    write_gap_table(searched_copy, SimpleNamespace(key="any", times=times, columns=[Variant(1.0, True)] * 3), GAP)
    assert not len(steps_of(searched_copy, tmp_path / "marked").gap)


@pytest.mark.parametrize(
    ("setting", "known"),
    [("search_seed=0", True), ("space.variants=[0.5, 0.5r, 1.0]", False), ("sampler.solver=best", False)],
)
def test_a_gap_that_does_not_say_what_it_is_of_is_used_where_there_is_no_doubt(
    searched_copy: Path, tmp_path: Path, setting: str, known: bool
) -> None:
    np.savez(searched_copy / GAP_FILE, gap=GAP, made_from="a version before")
    steps = steps_of(searched_copy, tmp_path / "of", "space.skip=even", setting)
    assert steps.gap.shape == ((STEPS, 3) if known else (0, 3))
    if known:
        grid = np.array(time_grid(SCHEDULE, "trailing", STEPS))
        np.testing.assert_allclose(steps.gap_half_log_snr, SCHEDULE.half_log_snr(grid))
