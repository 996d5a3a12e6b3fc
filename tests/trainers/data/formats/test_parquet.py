"""Parquet as dataset hubs ship it, made here: images in structs or plain, one file or many."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.trainers.loading import load, refusal

RNG = np.random.RandomState(0)
COLOUR = RNG.randint(0, 256, (24, 8, 8, 3)).astype(np.uint8)
GREY = RNG.randint(0, 256, (24, 8, 8)).astype(np.uint8)
LABELS = np.arange(24) % 3


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def structs(images: np.ndarray) -> list[dict[str, Any]]:
    return [{"bytes": png(image), "path": None} for image in images]


def write(path: Path, rows_in_a_group: int = 5, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_in_a_group)
    return path


@pytest.mark.parametrize("image", ["image", "img"])
@pytest.mark.parametrize("label", ["label", "labels", "fine_label"])
@pytest.mark.parametrize("plain", [False, True])
def test_one_file_with_any_of_the_names(tmp_path: Path, image: str, label: str, plain: bool) -> None:
    images = [png(pixels) for pixels in COLOUR] if plain else structs(COLOUR)
    columns = {"id": list(range(24)), "coarse_label": [9] * 24, image: images, label: LABELS}
    data = load("parquet", write(tmp_path / "a.parquet", **columns))
    assert data.labels is not None
    assert data.held_out_labels is not None
    label_of = {COLOUR[i].transpose(2, 0, 1).tobytes(): LABELS[i] for i in range(24)}
    assert len(data.images) + len(data.held_out_images) == 24
    for pixels, labels in ((data.images, data.labels), (data.held_out_images, data.held_out_labels)):
        assert [label_of[image.tobytes()] for image in pixels] == labels.tolist()


@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"),
        ("plain_text/train/0000.parquet", "plain_text/train/0001.parquet", "plain_text/validation/0000.parquet"),
        ("0000.parquet", "0001.parquet", "val_0.parquet"),
    ],
)
def test_a_folder_of_files_in_order_with_its_own_split(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for name, part in zip(names, (slice(0, 11), slice(11, 20), slice(20, 24)), strict=True):
        write(tmp_path / name, image=structs(GREY[part]), label=LABELS[part])
    data = load("parquet", tmp_path)
    assert np.array_equal(data.images, GREY[:20, None])
    assert np.array_equal(data.held_out_images, GREY[20:, None])
    assert np.array_equal(data.labels, LABELS[:20])
    assert np.array_equal(data.held_out_labels, LABELS[20:])
    assert data.images.flags.writeable


def test_validation_goes_before_a_test_split_whose_labels_are_kept_secret(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", image=structs(GREY[:20]), label=LABELS[:20])
    write(tmp_path / "validation-0.parquet", image=structs(GREY[20:22]), label=LABELS[20:22])
    write(tmp_path / "test-0.parquet", image=structs(GREY[22:]), label=[-1, -1])
    assert np.array_equal(load("parquet", tmp_path).held_out_images, GREY[20:22, None])


def test_files_called_tests_or_values_are_training_files(tmp_path: Path) -> None:
    write(tmp_path / "testament.parquet", image=structs(GREY[:12]))
    write(tmp_path / "values.parquet", image=structs(GREY[12:]))
    data = load("parquet", tmp_path)
    assert len(data.images) + len(data.held_out_images) == 24
    assert data.labels is None


def test_a_limit_takes_as_many_of_each_class(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", image=structs(GREY), label=np.sort(LABELS))
    data = load("parquet", path, limit=18, held_out=0.1)
    assert data.labels is not None
    assert data.held_out_labels is not None
    assert np.bincount(np.concatenate([data.labels, data.held_out_labels])).tolist() == [6, 6, 6]
    assert data.report.left_out["beyond data.limit"][0] == 6


def test_one_colour_picture_makes_all_of_them_colour(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", image=structs(GREY[:10]) + structs(COLOUR[:2]) + structs(GREY[10:12]))
    write(tmp_path / "test.parquet", image=structs(COLOUR[2:4]))
    data = load("parquet", tmp_path)
    grey = GREY[:12, None].repeat(3, axis=1)
    assert np.array_equal(data.images, np.concatenate([grey[:10], COLOUR[:2].transpose(0, 3, 1, 2), grey[10:]]))
    assert load("parquet", tmp_path, channels=1).channels == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [1] * 24}, "no column image or img; it has: picture"),
        ({"a": structs(GREY), "b": structs(GREY)}, "several that may hold images (a, b); set data.image_key"),
        ({"image": structs(GREY), "label": [[0, 1]] * 23 + [[0]]}, "several values per image"),
        ({"image": structs(GREY), "label": [-1] + [0] * 23}, "labels hold -1; a number of at least 0"),
        ({"image": structs(GREY), "label": [0] * 23 + [None]}, "24 images but 23 labels (none for row 23)"),
        ({"image": [{"path": "a.png"}] * 24}, "row 0 holds no bytes of an image"),
        ({"image": [{"bytes": None, "path": "a.png"}] * 24}, "row 0 holds no bytes of an image"),
        ({"image": [7] * 24}, "row 0 holds no bytes of an image"),
        ({"image": [*structs(GREY[:23]), {"bytes": b"x", "path": None}]}, "row 23 is not a readable image"),
        ({"image": structs(GREY[:20]) + structs(np.zeros((2, 5, 5), np.uint8))}, "differ in size (5x5, 8x8)"),
        ({"image": structs(GREY[:, :6])}, "8x6 pixels; set data.size"),
        ({"image": pa.array([], pa.binary())}, "no training images"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    assert message in refusal("parquet", write(tmp_path / "a.parquet", **columns))


@pytest.mark.parametrize("damage", ["half", "no end", "garbage", "empty", "no footer"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "a.parquet", image=structs(GREY), label=LABELS)
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    damaged = {
        "half": whole[: len(whole) // 2],
        "no end": whole[:-4],
        "garbage": b"no table",
        "empty": b"",
        "no footer": whole[: -8 - length] + bytes(length) + whole[-8:],
    }
    path.write_bytes(damaged[damage])
    assert "a.parquet is not a complete Parquet file" in refusal("parquet", path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no data at" in refusal("parquet", tmp_path / "gone.parquet")
    assert "expected .parquet files" in refusal("parquet", tmp_path)
    write(tmp_path / "test-0.parquet", image=structs(GREY))
    assert "no training files" in refusal("parquet", tmp_path)
