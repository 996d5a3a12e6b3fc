"""FID-infinity on Gaussian features, whose distance is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from stepfront.errors import InputError
from stepfront.trainers.metrics.fid import Moments, Reference
from stepfront.trainers.metrics.fid_infinity import PARTS, extrapolated_distance

DIMENSIONS = 32


def standard(dimensions: int = DIMENSIONS) -> Reference:
    """Return the exact statistics of a standard Gaussian."""
    return Reference(np.zeros(dimensions), np.eye(dimensions), 0, "", "", "")


@pytest.mark.parametrize("scale", [1.0, 1.2])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_is_unbiased_where_the_plain_distance_is_not(scale: float, shift: float) -> None:
    true = DIMENSIONS * (shift**2 + (scale - 1) ** 2)
    plain, extrapolated = [], []
    for seed in range(20):
        rows = shift + scale * np.random.default_rng(seed).standard_normal((256, DIMENSIONS))
        plain.append(standard().distance(Moments.of([rows])))
        extrapolated.append(extrapolated_distance(rows, standard()))
    bias, left = np.mean(plain) - true, abs(np.mean(extrapolated) - true)
    assert bias > 1  # about D (D + 5) / 4 N
    assert left < 0.15 * bias
    # One score is nearer as well, though it scatters more.
    assert np.mean(np.abs(np.array(extrapolated) - true)) < 0.5 * np.mean(np.abs(np.array(plain) - true))


def test_corrects_an_order_that_few_images_invert() -> None:
    """A diverse generator has the larger bias, so few images favour a collapsed one that is truly farther."""
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(DIMENSIONS) < 8, 1.0, 0.75)
    collapsed = np.eye(DIMENSIONS)[0] * 1.2 + scale * rng.standard_normal((96, DIMENSIONS))
    diverse = 1.25 * rng.standard_normal((96, DIMENSIONS))
    assert DIMENSIONS * 0.25**2 < 1.2**2 + (DIMENSIONS - 8) * 0.25**2
    plain = [standard().distance(Moments.of([rows])) for rows in (diverse, collapsed)]
    assert plain[0] > plain[1]
    assert extrapolated_distance(diverse, standard()) < extrapolated_distance(collapsed, standard())


def test_is_the_intercept_of_the_line_through_the_means_of_disjoint_parts() -> None:
    rows = np.random.default_rng(1).standard_normal((40, 3))
    reference = standard(3)
    order = np.random.default_rng(0).permutation(40)
    y = [
        np.mean([reference.distance(Moments.of([part])) for part in np.array_split(rows[order], k)])
        for k in range(1, PARTS + 1)
    ]
    x = np.arange(1, PARTS + 1) / 40
    slope = ((x - x.mean()) * (y - np.mean(y))).sum() / ((x - x.mean()) ** 2).sum()
    assert extrapolated_distance(rows, reference) == pytest.approx(np.mean(y) - slope * x.mean(), rel=1e-9)


def test_equal_rows_give_equal_numbers_and_too_few_are_refused() -> None:
    rows = np.random.default_rng(2).standard_normal((64, DIMENSIONS))
    assert extrapolated_distance(rows, standard()) == extrapolated_distance(rows.copy(), standard())
    with pytest.raises(InputError, match="at least 8 images, given 7"):
        extrapolated_distance(rows[:7], standard())
