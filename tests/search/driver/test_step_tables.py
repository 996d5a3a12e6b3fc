"""The tables of which step matters: shapes, and that a stretch that decides FID is the one that is found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.driver.step_tables import gap_table, sensitivity_table
from stepfront.search.genomes.encodings import Stages

WIDTHS = (0.25, 0.5, 1.0)


def test_the_gap_has_a_row_per_step_and_width() -> None:
    table = gap_table(np.arange(6.0).reshape(2, 3), [900, 100], WIDTHS)
    assert table["step"].tolist() == [1, 1, 1, 2, 2, 2]
    assert table["time"].tolist() == [900.0] * 3 + [100.0] * 3
    assert table["width"].tolist() == [*WIDTHS, *WIDTHS]
    assert table["gap"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.fixture
def encoding() -> Stages:
    return Stages(8, WIDTHS, False, 4)


def trials_of(encoding: Stages, count: int) -> pd.DataFrame:
    """Return trials whose FID doubles per level that the third stage lacks, whatever the others have."""
    rng = np.random.default_rng(0)
    plans = [encoding.project(encoding.draw(rng)) for _ in range(count)]
    fid = [5.0 * 2.0 ** (2 - int(plan[2])) for plan in plans]
    frame = pd.DataFrame({"trial": range(count), "genome": [encoding.pack(plan) for plan in plans], "fid": fid})
    frame = frame.assign(elapsed=frame["trial"] * 1.0, state="complete", origin="random")
    return frame.assign(gflops=[float(plan.sum()) for plan in plans])


def test_the_stretch_that_decides_fid_is_found(encoding: Stages) -> None:
    features = PlanFeatures(encoding, np.full((8, 3), 1e-3))
    trials = trials_of(encoding, 60)
    table = sensitivity_table(trials, trials.head(10), features, encoding)
    assert len(table) == 4 * 3
    assert table[["first_step", "last_step"]].drop_duplicates().to_numpy().tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert (table[table["width"] == 1.0]["factor"] == 1.0).all()
    decides = table["first_step"] == 5
    np.testing.assert_allclose(table[decides]["factor"], [4.0, 2.0, 1.0], rtol=0.15)
    np.testing.assert_allclose(table[~decides]["factor"], 1.0, atol=0.1)
    assert (table["plans"] == 10).all()


def test_the_model_does_not_learn_the_scores_of_fitted_samplers(encoding: Stages) -> None:
    features = PlanFeatures(encoding, np.full((8, 3), 1e-3))
    trials = trials_of(encoding, 60)
    fits = trials.assign(trial=trials["trial"] + 60, origin="fit", fid=0.1)
    with_fits = sensitivity_table(pd.concat([trials, fits]), trials.head(10), features, encoding)
    pd.testing.assert_frame_equal(with_fits, sensitivity_table(trials, trials.head(10), features, encoding))


def test_few_trials_say_nothing(encoding: Stages) -> None:
    trials = trials_of(encoding, 11)
    assert sensitivity_table(trials, trials, PlanFeatures(encoding, np.full((8, 3), 1e-3)), encoding).empty


def test_a_search_without_a_plan_that_keeps_its_constraints_has_no_sensitivity(encoding: Stages) -> None:
    trials = trials_of(encoding, 20)
    features = PlanFeatures(encoding, np.full((8, 3), 1e-3))
    assert sensitivity_table(trials, trials.head(0), features, encoding).empty
