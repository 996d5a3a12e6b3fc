"""Check that plans and gap tables of other samplers are mapped by log-SNR, not by step number."""

from __future__ import annotations

import numpy as np
import pytest

from stepfront.arrays import Array
from stepfront.search.earlier.mapped_plans import LogSnrOf, mapped_gap, mapped_levels
from stepfront.search.genomes.encodings import EvenStages, Stages, Steps

WIDTHS = (0.25, 0.5, 1.0)


def even(low: float, high: float) -> LogSnrOf:
    def of(steps: int) -> Array:
        return np.linspace(low, high, steps)

    return of


def test_widths_change_at_the_same_log_snr_on_another_grid() -> None:
    theirs = np.linspace(-6, 4, 101)  # steps of 0.1
    plan = tuple(np.where(theirs < -1.05, 0.25, 1.0))
    ours = even(-6, 0)
    encoding = Steps(13, WIDTHS, False)  # steps of 0.5
    levels = mapped_levels(plan, encoding, theirs, ours)
    assert levels.tolist() == [0 if at < -1.05 - 0.25 else 2 for at in np.linspace(-6, 0, 13)]
    # By step number the narrow half would end in the middle.
    assert mapped_levels(plan, encoding).tolist() == [0] * 6 + [2] * 7


def test_the_own_plan_stays_what_it_is() -> None:
    encoding, ours = Stages(20, WIDTHS, False, 10), even(-5, 5)
    for seed in range(5):
        levels = np.random.default_rng(seed).integers(0, 3, 10)
        widths = encoding.step_widths(levels)
        assert np.array_equal(mapped_levels(widths, encoding, np.linspace(-5, 5, 20), ours), levels)


def test_even_stages_keep_the_number_of_steps() -> None:
    encoding = EvenStages(20, WIDTHS, 20)
    widths = (0.25,) * 3 + (1.0,) * 7
    found = mapped_levels(widths, encoding, np.linspace(-5, 5, 10), even(-5, 5))
    assert encoding.step_widths(found) == widths


def test_a_gap_that_is_linear_in_both_is_mapped_exactly() -> None:
    theirs, widths = np.linspace(-6, 6, 25), (0.25, 0.75, 1.0)
    gap = (theirs[:, None] + 10) * (1 - np.array(widths))[None]
    encoding = Stages(10, (0.25, 0.5, 1.0), False, 10)
    at = np.linspace(-5, 5, 10)
    found = mapped_gap(gap, theirs, widths, encoding, even(-5, 5))
    assert found == pytest.approx((at[:, None] + 10) * np.array([0.75, 0.5, 0.0]))
