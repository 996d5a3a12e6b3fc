"""Check a dataset format: arrays of the promised type, the same at every reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stepfront.trainers.config import DataSettings
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.data.formats.dataset_format import find_format
from stepfront.trainers.data.spill_buffer import MemoryBudget


class DatasetFormatConformance:
    """The contract of a dataset format.  Set `format` to the name that settings would give it.

    Override `make` to write a small dataset of at least 16 training images into a folder and return its path, or None
    where the format needs no files.
    """

    format: str

    def make(self, folder: Path) -> Path | None:
        """Write a small dataset into `folder`; return the path that `data.path` would name."""
        return None

    def settings(self, folder: Path, **others: object) -> DataSettings:
        """Return the settings of the dataset, with a cache in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        path = self.make(folder / "data")
        return DataSettings(
            format=self.format,
            path=None if path is None else str(path),
            cache=str(folder / "cache"),
            **others,  # type: ignore[arg-type]
        )

    def load(self, folder: Path, **others: object) -> ImageData:
        """Load the dataset as a search does."""
        return load_data(self.settings(folder, **others))

    def test_the_reader_returns_bytes_and_whole_numbers(self, tmp_path: Path) -> None:
        """Images are uint8 [N, C, H, W] of 1 or 3 channels, labels int64 [N] from 0 on, or None."""
        settings = self.settings(tmp_path)
        with MemoryBudget(2**30, lambda: tmp_path) as budget:
            for split in find_format(self.format)(settings, budget):
                if split is None:
                    continue
                images, labels = split
                assert images.dtype == np.uint8, f"images are {images.dtype}, not uint8"
                assert images.ndim == 4, f"images are {list(images.shape)}, not [N, C, H, W]"
                assert images.shape[1] in (1, 3), f"images have {images.shape[1]} channels, not 1 or 3"
                if labels is not None:
                    assert labels.dtype == np.int64, f"labels are {labels.dtype}, not int64"
                    assert labels.shape == (len(images),), f"{list(labels.shape)} labels for {len(images)} images"
                    assert labels.min() >= 0, "labels begin below 0"

    def test_two_readings_are_equal(self, tmp_path: Path) -> None:
        """Pixels, labels and order are the same, so the fingerprint is."""
        settings = self.settings(tmp_path)
        first, second = load_data(settings), load_data(settings)
        assert first.fingerprint == second.fingerprint, "two readings differ"
        np.testing.assert_array_equal(first.images, second.images)

    def test_images_that_exceed_the_memory_are_the_same(self, tmp_path: Path) -> None:
        """Pixels that are mapped from a file are those that fit into memory, and are found again."""
        unlimited = self.load(tmp_path / "unlimited")
        settings = self.settings(tmp_path / "mapped", memory_mb=1e-3)
        for data in (load_data(settings), load_data(settings)):
            assert data.fingerprint == unlimited.fingerprint, "mapped images differ from those in memory"
            np.testing.assert_array_equal(data.held_out_images, unlimited.held_out_images)

    def test_there_are_images_to_train_on_and_held_out_ones(self, tmp_path: Path) -> None:
        """Both splits are square, of one size, and not empty."""
        data = self.load(tmp_path)
        assert len(data.images) >= 16, f"{len(data.images)} training images; make at least 16"
        assert len(data.held_out_images), "no image is held out"
        assert data.images.shape[2] == data.images.shape[3] == data.held_out_images.shape[2], "images are not square"

    def test_size_channels_and_limit_are_those_of_the_settings(self, tmp_path: Path) -> None:
        """The settings' size and channels are met by resizing and conversion."""
        data = self.load(tmp_path, size=4, channels=3, limit=16)
        assert data.images.shape[1:] == (3, 4, 4), f"images are {data.images.shape[1:]}; 3 x 4 x 4 was asked for"
        assert len(data.images) <= 16, f"{len(data.images)} training images; data.limit was 16"
