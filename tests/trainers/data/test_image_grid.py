"""Grids of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepfront.trainers.data.image_grid import image_grid, save_grid


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "factor"), [(8, 4), (20, 2), (32, 1), (40, 1)])
def test_every_image_stands_in_its_place_enlarged_by_whole_factors(channels: int, size: int, factor: int) -> None:
    images = np.random.RandomState(0).randint(0, 256, (5, channels, size, size)).astype(np.uint8)
    sheet = np.asarray(image_grid(images, columns=3))
    side = size * factor
    assert sheet.shape[:2] == (2 * (side + 1) - 1, 3 * (side + 1) - 1)
    sheet = sheet.reshape(*sheet.shape[:2], channels)
    for i, image in enumerate(images):
        top, left = (i // 3) * (side + 1), (i % 3) * (side + 1)
        tile = sheet[top : top + side, left : left + side]
        for dy in range(factor):
            for dx in range(factor):
                assert np.array_equal(np.moveaxis(tile[dy::factor, dx::factor], 2, 0), image)
    assert (sheet[side] == 127).all()  # the line between the rows
    assert (sheet[side + 1 :, 2 * (side + 1) :] == 127).all()  # the place of the sixth image


def test_a_saved_grid_is_a_png_of_the_same_pixels(tmp_path: Path) -> None:
    images = np.random.RandomState(1).randint(0, 256, (9, 3, 8, 8)).astype(np.uint8)
    save_grid(images, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.format == "PNG"
        assert np.array_equal(np.asarray(picture), np.asarray(image_grid(images, columns=8)))
