"""Draw grids of images and write them as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from stepfront.files import write_atomically
from stepfront.trainers.data import Pixels


def image_grid(images: Pixels, columns: int, least_pixels: int = 32) -> Image.Image:
    """Draw [N, C, H, W] uint8 in rows of `columns`, one pixel apart; small images are enlarged by whole factors."""
    factor = max(1, -(-least_pixels // images.shape[2]))
    tiles = images.repeat(factor, axis=2).repeat(factor, axis=3)
    count, channels, height, width = tiles.shape
    rows = -(-count // columns)
    sheet = np.full((channels, rows * (height + 1) - 1, columns * (width + 1) - 1), 127, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[:, top : top + height, left : left + width] = tile
    return Image.fromarray(sheet[0] if channels == 1 else np.moveaxis(sheet, 0, 2))


def save_grid(images: Pixels, path: Path, columns: int = 8, recorded: bool = True) -> None:
    """Write the grid as PNG; `recorded` as in `write_atomically`."""
    write_atomically(path, lambda beside: image_grid(images, columns).save(beside, format="PNG"), recorded)
