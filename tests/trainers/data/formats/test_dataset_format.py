"""A reader of the user's own: named by its import path, checked, cached and fingerprinted like ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data import ImageData, fingerprint, load_data
from stepfront.trainers.data.decode import ImageStack, Splits
from stepfront.trainers.data.spill_buffer import MemoryBudget
from tests.trainers.data.formats import test_parquet

IMAGES = np.random.RandomState(0).randint(0, 256, (20, 1, 8, 8)).astype(np.uint8)
LABELS = np.arange(20) % 3
HERE = "tests.trainers.data.formats.test_dataset_format"


def read_arrays(settings: DataSettings, budget: MemoryBudget) -> Splits:
    return (IMAGES, LABELS), (IMAGES[:4], LABELS[:4])


def read_floats(settings: DataSettings, budget: MemoryBudget) -> Splits:
    return (IMAGES.astype(np.float32), None), None  # type: ignore[return-value]


def read_too_few_labels(settings: DataSettings, budget: MemoryBudget) -> Splits:
    return (IMAGES, LABELS[:-1]), None


def read_pictures(settings: DataSettings, budget: MemoryBudget) -> Splits:
    stack = ImageStack(settings, "pictures", budget)
    for file in sorted(Path(str(settings.path)).glob("*.dat")):
        stack.add(file.read_bytes(), str(file), 0)
    return stack.split(), None


def load(function: str, **settings: object) -> ImageData:
    return load_data(DataSettings(format=f"{HERE}:{function}", **settings))  # type: ignore[arg-type]


def test_its_arrays_are_the_data_and_need_no_path() -> None:
    data = load("read_arrays")
    assert np.array_equal(data.images, IMAGES)
    assert data.fingerprint == fingerprint((IMAGES, LABELS), (IMAGES[:4], LABELS[:4]))
    assert data.name == f"{HERE}:read_arrays"


def test_its_images_are_brought_to_the_settings_size_and_channels() -> None:
    data = load("read_arrays", size=4, channels=3, limit=16)
    assert data.images.shape == (16, 3, 4, 4)
    assert data.held_out_images.shape == (4, 3, 4, 4)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("read_floats", r"gave images float32 \[20, 1, 8, 8\]; uint8 \[N, C, H, W\] needed"),
        ("read_too_few_labels", r"gave labels int64 \[19\]; int64 \[20\] or None needed"),
    ],
)
def test_what_breaks_the_contract_is_refused(function: str, message: str) -> None:
    with pytest.raises(InputError, match=f"data.format {HERE}:{function} {message}"):
        load(function)


def test_its_large_images_are_cached_until_a_file_changes(tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    for number, image in enumerate(test_parquet.GREY):
        (source / f"{number:02}.dat").write_bytes(test_parquet.png(image))
    settings = {"path": str(source), "memory_mb": 1e-3, "cache": str(tmp_path / "cache")}
    first = load("read_pictures", **settings)
    assert isinstance(first.images, np.memmap)
    assert load("read_pictures", **settings).fingerprint == first.fingerprint
    (source / "00.dat").write_bytes(test_parquet.png(255 - test_parquet.GREY[0]))
    assert load("read_pictures", **settings).fingerprint != first.fingerprint
