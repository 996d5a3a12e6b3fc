"""Non-inferiority: intervals in closed form, and error rates by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from stepfront.search.claims.noninferiority import Difference, level_of_each, paired_difference, plan_looks

LOOKS = (5, 10, 15)
RESAMPLINGS = 200


def test_the_interval_of_a_difference_is_students() -> None:
    found = paired_difference(np.array([2.0, 3.0]), np.array([1.5, 2.1]), 0.95)
    assert (found.score, found.reference, found.mean) == pytest.approx((2.5, 1.8, 0.7))
    # Differences 0.5 and 0.9: standard error 0.2; Student's t of one degree of freedom is tan(0.95 pi / 2) = 12.706.
    half = np.tan(0.475 * np.pi) * 0.2
    assert (found.low, found.high) == pytest.approx((0.7 - half, 0.7 + half))


def test_noise_that_both_share_cancels() -> None:
    noise = np.array([0.0, 5.0, -3.0])
    found = paired_difference(noise + 1.1, noise + 1.0, 0.95)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_one_seed_shows_nothing() -> None:
    found = paired_difference(np.array([1.0]), np.array([2.0]), 0.95)
    assert not found.not_worse(0.05)


@pytest.mark.parametrize(
    ("mean", "high", "shown", "possible"),
    [(0.01, 0.04, True, True), (0.01, 0.05, False, True), (0.06, 0.09, False, False), (-0.5, -0.4, True, True)],
)
def test_the_upper_end_is_compared_with_the_margin(mean: float, high: float, shown: bool, possible: bool) -> None:
    found = Difference(1.0 + mean, 1.0, mean, 2 * mean - high, high)
    assert (found.not_worse(0.05), found.may_hold(0.05)) == (shown, possible)


def test_looks_end_at_the_most_seeds() -> None:
    assert plan_looks(5, 15) == (5, 10, 15)
    assert plan_looks(5, 12) == (5, 10, 12)
    assert plan_looks(5, 5) == plan_looks(5, 3) == (5,)
    assert plan_looks(2, 5) == (2, 4, 5)


def test_all_intervals_together_have_95_percent() -> None:
    assert level_of_each(1) == pytest.approx(0.95)
    assert level_of_each(3) == pytest.approx(1 - 0.05 / 3)


def simulated(rng: np.random.Generator, worse_by: float) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of a plan and of a reference of 1.0 that share a part of their noise."""
    shared, own = rng.normal(0, 0.2, LOOKS[-1]), rng.normal(0, 0.03, (2, LOOKS[-1]))
    return 1.0 + worse_by + shared + own[0], 1.0 + shared + own[1]


def test_intervals_cover_the_true_difference_19_times_of_20() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(RESAMPLINGS):
        scores, references = simulated(rng, 0.02)
        found = [paired_difference(scores[:n], references[:n], level_of_each(len(LOOKS))) for n in LOOKS]
        covered += all(each.low <= 0.02 <= each.high for each in found)  # at every look that can be taken
    assert covered >= 0.95 * RESAMPLINGS


def test_a_plan_worse_by_the_margin_is_claimed_in_at_most_5_percent() -> None:
    rng, claimed, equal = np.random.default_rng(1), 0, 0
    for _ in range(RESAMPLINGS):
        claimed += _is_claimed(*simulated(rng, 0.05))
        equal += _is_claimed(*simulated(rng, 0.0))
    assert claimed <= 0.05 * RESAMPLINGS
    assert equal >= 0.8 * RESAMPLINGS  # an equal plan is recognised


def _is_claimed(scores: np.ndarray, references: np.ndarray) -> bool:
    """Return whether any look shows the plan to be not worse by 5 % of the reference's score."""
    level = level_of_each(len(LOOKS))
    return any(paired_difference(scores[:n], references[:n], level).not_worse(0.05) for n in LOOKS)
