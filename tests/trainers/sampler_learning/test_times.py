"""Times from free parameters: golden numbers, the way back, the least gap, and what the network is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.sampler_learning.times import check_gap, falling_times, logits_of, network_times

THETA = torch.tensor([0.1, -0.2, 0.3, 0.0, 0.5], dtype=torch.float64)
GOLDEN = [999.0, 812.580557, 674.477637, 446.784416, 278.105129]


def as_tensor(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_golden_times() -> None:
    assert falling_times(THETA, 999.0, 0.0).tolist() == pytest.approx(GOLDEN, abs=1e-6)


@pytest.mark.parametrize("gap", [0.0, 1.0, 20.0])
def test_logits_lead_back_to_the_times(gap: float) -> None:
    times = falling_times(THETA, 900.0, gap)
    assert falling_times(logits_of(times, gap), times[0], gap).tolist() == pytest.approx(times.tolist(), abs=1e-9)


def test_times_are_a_least_gap_apart_whatever_the_logits() -> None:
    extreme = as_tensor(60.0, -60.0, 0.0, -60.0, 60.0)
    gaps = -torch.diff(falling_times(extreme, 999.0, 5.0), append=as_tensor(0.0))
    assert gaps.min() >= 5.0 - 1e-9
    # A hand grid with smaller gaps, and a last time of 0, is moved as little as the gap asks.
    moved = falling_times(logits_of(as_tensor(999.0, 500.0, 2.0, 0.0), 1.0), 999.0, 1.0)
    assert moved.tolist() == pytest.approx([999.0, 500.0, 2.0, 1.0], abs=2.0)


def test_a_gap_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"5 steps at least 250 apart .* below 200"):
        check_gap(5, 250.0, 999.0)


def test_the_network_is_told_at_most_half_a_gap_away() -> None:
    told = network_times(as_tensor(*GOLDEN), as_tensor(9.0, 3.0, -400.0, 0.0, 50.0), 999.0)
    assert told.tolist() == pytest.approx([999.0, 815.5806, 605.4262, 446.7844, 328.1051], abs=1e-4)
