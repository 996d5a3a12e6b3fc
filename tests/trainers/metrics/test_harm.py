"""Known harm: stronger is further from the image, nothing leaves [-1, 1], and equal seeds do equal harm."""

from __future__ import annotations

import pytest
import torch

from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.metrics.harm import HARMS, blur, harm_images


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


@pytest.mark.parametrize("harm", HARMS)
def test_images_are_harmed_on_their_own_device(harm: str) -> None:
    # Tensors of the meta device refuse to meet those of the CPU, as those of a GPU do.
    harmed = harm_images(torch.zeros(4, 3, 8, 8, device="meta"), harm, 0.5, seed=1)
    assert (harmed.device.type, harmed.shape) == ("meta", (4, 3, 8, 8))


@pytest.mark.parametrize("side", [8, 33])
def test_blurs_are_linear_between_the_image_and_two_gaussians(side: int) -> None:
    points = torch.zeros(5, 1, side, side)
    points[:, :, side // 2, side // 2] = 1
    none, sharp, soft, first, second = blur(points, torch.tensor([0.0, 0.5, 1.0, 0.3, 0.8]), torch.Generator())
    assert torch.equal(none, points[0])
    torch.testing.assert_close(first, 0.4 * none + 0.6 * sharp)
    torch.testing.assert_close(second, 0.4 * sharp + 0.6 * soft)
    at = torch.arange(side) - side // 2
    width = float((soft.sum((0, 1)) * at.square()).sum().sqrt())
    assert width == pytest.approx(min(2.0, 0.08 * side + 0.4), rel=0.15)  # the kernel ends at two deviations
