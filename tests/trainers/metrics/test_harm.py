"""Known harm: stronger is further from the image, nothing leaves [-1, 1], and equal seeds do equal harm."""

from __future__ import annotations

import pytest
import torch

from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.metrics.harm import HARMS, harm_images


@pytest.mark.parametrize("harm", HARMS)
def test_stronger_harm_is_further_from_the_image(harm: str, digits: ImageData) -> None:
    x = to_float(digits.held_out_images[:64])
    distances = [float((harm_images(x, harm, strength, seed=1) - x).square().mean()) for strength in (0.1, 0.4, 1.0)]
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("harm", HARMS)
def test_harmed_images_are_images_and_equal_seeds_do_equal_harm(harm: str, digits: ImageData) -> None:
    x = to_float(digits.held_out_images[:32])
    harmed = harm_images(x, harm, 0.7, seed=1)
    assert harmed.shape == x.shape
    assert harmed.min() >= -1
    assert harmed.max() <= 1
    assert torch.equal(harmed, harm_images(x, harm, 0.7, seed=1))


def test_blur_keeps_a_plain_image_and_lowers_the_highest_frequency() -> None:
    plain = torch.full((1, 1, 16, 16), 0.3)
    assert torch.allclose(harm_images(plain, "blur", 1.0, seed=0), plain, atol=1e-6)
    checkered = (torch.arange(16)[:, None] + torch.arange(16)[None]).remainder(2).float()[None, None] * 2 - 1
    assert harm_images(checkered, "blur", 1.0, seed=0).abs().mean() < 0.2


def test_contrast_keeps_the_mean_and_shrinks_the_deviation_by_six_tenths() -> None:
    x = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    harmed = harm_images(x, "contrast", 1.0, seed=0)
    assert float(harmed.mean()) == pytest.approx(float(x.mean()), abs=1e-6)
    assert float(harmed.std() / x.std()) == pytest.approx(0.4, abs=1e-5)
