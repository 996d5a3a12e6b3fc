"""digits, idx, npz and folders, whole and damaged, made here; and the real files beside the repository."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stepfront.trainers.config import DataSettings
from stepfront.trainers.data import ImageData, load_data, to_float, to_pixels
from tests.trainers.loading import load, refusal

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
RNG = np.random.RandomState(0)
GREY = RNG.randint(0, 256, (24, 8, 8)).astype(np.uint8)
COLOUR = RNG.randint(0, 256, (24, 8, 8, 3)).astype(np.uint8)
LABELS = np.arange(24) % 3


# --- digits, the split, the fingerprint -------------------------------------------------------------------------------


def test_digits_are_1797_grey_images_of_10_classes_split_for_good(digits: ImageData) -> None:
    from sklearn.datasets import load_digits

    assert (len(digits.images), len(digits.held_out_images)) == (1617, 180)
    assert (digits.channels, digits.resolution, digits.classes, digits.name) == (1, 8, 10, "digits")
    # Every image is on exactly one side, with its own label.
    rows = load_digits()
    whole = {
        (np.round(r * 255 / 16).astype(np.uint8).tobytes(), y) for r, y in zip(rows.images, rows.target, strict=True)
    }
    assert digits.labels is not None
    assert digits.held_out_labels is not None
    parts = [(digits.images, digits.labels), (digits.held_out_images, digits.held_out_labels)]
    split = [(image.tobytes(), label) for images, labels in parts for image, label in zip(images, labels, strict=True)]
    assert len(split) == 1797
    assert set(split) == whole
    assert load_data(DataSettings()).fingerprint == digits.fingerprint


def test_held_out_share_and_limit(digits: ImageData) -> None:
    data = load_data(DataSettings(limit=100, held_out=0.25))
    assert (len(data.images), len(data.held_out_images)) == (75, 25)
    assert data.fingerprint != digits.fingerprint


def test_pixels_and_floats_are_inverse_and_in_range() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    floats = to_float(levels)
    assert floats.dtype == torch.float32
    assert (float(floats.min()), float(floats.max())) == (-1.0, 1.0)
    assert np.array_equal(to_pixels(floats), levels)
    assert to_pixels(torch.tensor([-9.0, -1.0, 0.999, 1.0, 9.0])).tolist() == [0, 0, 255, 255, 255]


# --- idx --------------------------------------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> None:
    raw = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    write_idx(tmp_path / "idx" / "train-images-idx3-ubyte", GREY[:20])
    write_idx(tmp_path / "idx" / "train-labels-idx1-ubyte", LABELS[:20])
    write_idx(tmp_path / "idx" / "t10k-images-idx3-ubyte.gz", GREY[20:])
    write_idx(tmp_path / "idx" / "t10k-labels-idx1-ubyte.gz", LABELS[20:])
    return tmp_path / "idx"


def test_idx_plain_and_gzipped_with_its_own_split(idx: Path) -> None:
    data = load("idx", idx)
    assert np.array_equal(data.images, GREY[:20, None])
    assert np.array_equal(data.held_out_images, GREY[20:, None])
    assert np.array_equal(data.labels, LABELS[:20])
    assert np.array_equal(data.held_out_labels, LABELS[20:])
    assert data.name == "idx"


def test_idx_without_test_files_or_labels(idx: Path) -> None:
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "train-labels-idx1-ubyte"):
        (idx / name).unlink()
    data = load("idx", idx, held_out=0.25)
    assert (len(data.images), len(data.held_out_images)) == (15, 5)
    assert data.labels is None
    assert data.held_out_labels is None
    assert data.classes == 0


def test_idx_images_are_writable_or_torch_would_warn_of_every_use(idx: Path) -> None:
    data = load("idx", idx)
    assert data.images.flags.writeable
    assert data.held_out_images.flags.writeable


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz"])
@pytest.mark.parametrize("keep", [0, 3, 11, 100, -1])
def test_idx_truncated_anywhere_names_the_file(idx: Path, name: str, keep: int) -> None:
    whole = (idx / name).read_bytes()
    (idx / name).write_bytes(whole[:keep])
    assert name in refusal("idx", idx)


def test_idx_with_bytes_too_many_or_flipped(idx: Path) -> None:
    path = idx / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0")
    assert "1281 of 1280 bytes" in refusal("idx", idx)
    path.write_bytes(whole)
    path = idx / "t10k-images-idx3-ubyte.gz"
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 255
    path.write_bytes(flipped)
    assert "t10k-images-idx3-ubyte.gz is damaged" in refusal("idx", idx)


@pytest.mark.parametrize("magic", ["00000801", "00000d03", "89504e47", "00000803"[:6] + "02"])
def test_idx_of_another_magic_shows_it(idx: Path, magic: str) -> None:
    path = idx / "train-images-idx3-ubyte"
    path.write_bytes(bytes.fromhex(magic) + path.read_bytes()[4:])
    assert f"train-images-idx3-ubyte is not an idx file of bytes with 3 axes (its header is {magic})" in refusal(
        "idx", idx
    )


def test_idx_images_and_labels_swapped(idx: Path) -> None:
    write_idx(idx / "train-labels-idx1-ubyte", GREY[:20])
    assert "train-labels-idx1-ubyte is not an idx file of bytes with 1 axes" in refusal("idx", idx)


def test_idx_label_count(idx: Path) -> None:
    write_idx(idx / "train-labels-idx1-ubyte", LABELS[:19])
    assert "20 train images but 19 labels" in refusal("idx", idx)


def test_idx_that_is_not_there(tmp_path: Path) -> None:
    assert "expected train-images-idx3-ubyte, or the same with .gz" in refusal("idx", tmp_path)
    assert "not a directory; idx data are a directory" in refusal("idx", tmp_path / "gone")


@pytest.mark.parametrize("size", [None, 16])
def test_idx_of_no_images(tmp_path: Path, size: int | None) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", GREY[:0])
    assert "0 training images; at least 2 and 1 held out needed" in refusal("idx", tmp_path, size=size)


def test_idx_not_square_and_of_no_pixels(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((20, 8, 6)))
    assert "6x8 pixels; set data.size to make them square" in refusal("idx", tmp_path)
    assert load("idx", tmp_path, size=8).images.shape == (18, 1, 8, 8)
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((20, 0, 0)))
    assert "0x0 pixels" in refusal("idx", tmp_path)


# --- npz --------------------------------------------------------------------------------------------------------------


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_npz_grey_with_labels_of_two_axes_and_a_split(tmp_path: Path) -> None:
    arrays = {"train_images": GREY[:20], "train_labels": LABELS[:20, None], "val_images": GREY[20:]}
    path = write_npz(tmp_path / "medical.npz", **arrays, val_labels=LABELS[20:, None], test_images=GREY[:2])
    data = load("npz", path)
    assert np.array_equal(data.images, GREY[:20, None])
    assert np.array_equal(data.labels, LABELS[:20])
    assert np.array_equal(data.held_out_images, GREY[20:, None])
    assert np.array_equal(data.held_out_labels, LABELS[20:])
    assert (data.name, data.classes) == ("medical.npz", 3)


def test_npz_colour_without_labels(tmp_path: Path) -> None:
    data = load("npz", write_npz(tmp_path / "a.npz", train_images=COLOUR[:20], test_images=COLOUR[20:]))
    assert np.array_equal(data.images, COLOUR[:20].transpose(0, 3, 1, 2))
    assert np.array_equal(data.held_out_images, COLOUR[20:].transpose(0, 3, 1, 2))
    assert data.labels is None


def test_npz_channels_and_size_are_brought_to_the_settings(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", train_images=COLOUR[:20], test_images=COLOUR[20:])
    grey = load("npz", path, channels=1)
    luma = np.asarray(Image.fromarray(COLOUR[0]).convert("L"))
    assert np.array_equal(grey.images[0, 0], luma)
    assert load("npz", path, size=16).images.shape == (20, 3, 16, 16)
    path = write_npz(tmp_path / "b.npz", train_images=GREY[:20], test_images=GREY[20:])
    colour = load("npz", path, channels=3)
    assert np.array_equal(colour.images, GREY[:20, None].repeat(3, axis=1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"weights": GREY[0]}, "no array train_images; it has: weights"),
        ({"train_images": GREY.astype(np.float32)}, "float32 (24, 8, 8) from 0 to 255; uint8 [N, H, W]"),
        ({"train_images": GREY[0]}, "uint8 (8, 8); uint8 [N, H, W]"),
        ({"train_images": COLOUR[:, :, :, :2]}, "images of 2 channels; 1 (grey) or 3 (RGB) are possible"),
        ({"train_images": GREY, "train_labels": LABELS[:5]}, "24 train images but 5 labels"),
        ({"train_images": GREY, "train_labels": np.int64(3)}, "training labels are int64 (); a number of at least 0"),
        ({"train_images": GREY, "train_labels": np.array(["2"] * 23 + ["cat"])}, "numbers and text ('cat')"),
        ({"train_images": GREY, "train_labels": LABELS - 1}, "a number of at least 0 for each image"),
        ({"train_images": GREY, "train_labels": np.array([None] * 24)}, "not a readable npz"),
        ({"train_images": GREY[:0]}, "0 training images"),
        ({"train_images": GREY[:0], "train_labels": LABELS[:0]}, "0 training images"),
        ({"train_images": GREY[:, :6]}, "8x6 pixels; set data.size"),
        ({"train_images": GREY, "val_images": COLOUR}, "differ (1x8x8 and 3x8x8); set data.size and data.channels"),
        ({"train_images": GREY, "val_images": GREY[:, :4, :4]}, "differ (1x8x8 and 1x4x4)"),
    ],
)
def test_npz_that_cannot_be_used(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    assert message in refusal("npz", write_npz(tmp_path / "a.npz", **arrays))


def test_npz_missing_truncated_and_no_archive(tmp_path: Path, trap: tuple[object, Path]) -> None:
    path = tmp_path / "a.npz"
    assert "no data file" in refusal("npz", path)
    whole = write_npz(path, train_images=GREY).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "not a readable npz" in refusal("npz", path)
    path.write_bytes(b"")
    assert "not a readable npz" in refusal("npz", path)
    np.save(tmp_path / "b.npy", GREY)
    assert "not a readable npz" in refusal("npz", tmp_path / "b.npy")
    bomb, witness = trap
    np.savez(path, train_images=np.array([bomb]))
    assert "not a readable npz" in refusal("npz", path)
    assert not witness.exists()


# --- folders and zips -------------------------------------------------------------------------------------------------


def write_images(directory: Path, pixels: np.ndarray, suffix: str = "png") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(directory / f"{i:03d}.{suffix}")
    return directory


def zipped(folder: Path, prefix: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def plain(path: Path) -> Path:
    return path


@pytest.mark.parametrize("pack", [plain, zipped])
def test_folder_of_images_without_classes(tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    data = load("folder", pack(write_images(tmp_path / "set", GREY[:20])))
    assert data.labels is None
    assert (len(data.images), len(data.held_out_images)) == (18, 2)
    everything = {image.tobytes() for image in (*data.images, *data.held_out_images)}
    assert everything == {image.tobytes() for image in GREY[:20]}


@pytest.mark.parametrize("pack", [plain, zipped, lambda folder: zipped(folder, "around/it/")])
def test_folder_of_classes_labels_them_in_alphabetical_order(tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    for i, name in enumerate(("cat", "ant", "bee")):
        write_images(tmp_path / "set" / name, COLOUR[8 * i : 8 * i + 8])
    data = load("folder", pack(tmp_path / "set"))
    assert data.labels is not None
    assert data.held_out_labels is not None
    label_of = {COLOUR[i].transpose(2, 0, 1).tobytes(): (2, 0, 1)[i // 8] for i in range(24)}
    for images, labels in ((data.images, data.labels), (data.held_out_images, data.held_out_labels)):
        assert [label_of[image.tobytes()] for image in images] == labels.tolist()
    assert data.classes == 3


@pytest.mark.parametrize("held_out", ["test", "val", "valid", "validation"])
@pytest.mark.parametrize("pack", [plain, zipped, lambda folder: zipped(folder, "around/")])
def test_folder_with_a_split_of_its_own(tmp_path: Path, pack: Callable[[Path], Path], held_out: str) -> None:
    write_images(tmp_path / "set" / "train" / "ant", GREY[:6])
    write_images(tmp_path / "set" / "train" / "bee", GREY[6:12])
    write_images(tmp_path / "set" / held_out / "bee", GREY[12:14])
    data = load("folder", pack(tmp_path / "set"))
    assert np.array_equal(data.images, GREY[:12, None])
    assert data.labels is not None
    assert data.labels.tolist() == [0] * 6 + [1] * 6
    assert np.array_equal(data.held_out_images, GREY[12:14, None])
    assert data.held_out_labels is not None
    assert data.held_out_labels.tolist() == [1, 1]


def test_folder_with_a_split_and_no_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "train", GREY[:10])
    write_images(tmp_path / "test", GREY[10:13])
    data = load("folder", tmp_path)
    assert np.array_equal(data.images, GREY[:10, None])
    assert np.array_equal(data.held_out_images, GREY[10:13, None])
    assert data.labels is None


def test_a_folder_called_test_is_held_out_unless_the_settings_make_it_a_class(tmp_path: Path) -> None:
    for i, name in enumerate(("test", "rest")):
        write_images(tmp_path / name, GREY[8 * i : 8 * i + 8])
    data = load("folder", tmp_path)
    assert np.array_equal(data.held_out_images, GREY[:8, None])
    assert any("data.splits" in note for note in data.report.notes)
    assert load("folder", tmp_path, splits={}).class_names == ("rest", "test")


def test_folder_ignores_other_files_and_hidden_ones(tmp_path: Path) -> None:
    write_images(tmp_path, GREY[:20])
    (tmp_path / "readme.txt").write_text("no image")
    (tmp_path / "._000.png").write_bytes(b"what some systems leave beside each file")
    write_images(tmp_path / ".thumbnails", GREY[:2])
    write_images(tmp_path / "__MACOSX", GREY[:2])
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path, zipped(tmp_path)):
        data = load("folder", path)
        assert len(data.images) + len(data.held_out_images) == 20
        assert data.labels is None


def test_grey_and_colour_files_are_recognised_and_brought_to_the_settings(tmp_path: Path) -> None:
    grey, colour = write_images(tmp_path / "g", GREY), write_images(tmp_path / "c", COLOUR)
    assert load("folder", grey).channels == 1
    assert load("folder", colour).channels == 3
    assert load("folder", grey, channels=3).channels == 3
    assert load("folder", colour, channels=1).channels == 1
    both = tmp_path / "both"
    write_images(both / "a", GREY)
    write_images(both / "b", COLOUR)
    assert load("folder", both).channels == 3


def test_grey_files_with_transparency_are_grey(tmp_path: Path) -> None:
    for i in range(4):
        Image.fromarray(GREY[i]).convert("LA").save(tmp_path / f"{i}.png")
    data = load("folder", tmp_path)
    assert data.channels == 1
    assert np.array_equal(np.concatenate([data.images, data.held_out_images])[:, 0].sum(0), GREY[:4].sum(0))


def test_16_bit_greys_are_scaled_not_clamped(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 256 + RNG.randint(0, 256, GREY.shape).astype(np.uint16)
    for i in range(4):
        Image.fromarray(deep[i]).save(tmp_path / f"{i}.png")
    data = load("folder", tmp_path)
    assert data.channels == 1
    everything = {image.tobytes() for image in (*data.images, *data.held_out_images)}
    assert everything == {image.tobytes() for image in GREY[:4]}


def test_resizing_takes_the_centre_square(tmp_path: Path) -> None:
    wide = np.zeros((6, 8, 20), np.uint8)
    wide[:, :, 6:14] = 200  # what lies in the middle 8 columns
    data = load("folder", write_images(tmp_path / "wide", wide), size=4)
    assert data.images.shape == (5, 1, 4, 4)
    assert (data.images == 200).all()


def test_folder_of_different_sizes_shows_them(tmp_path: Path) -> None:
    write_images(tmp_path / "a", GREY[:4])
    write_images(tmp_path / "b", np.zeros((2, 5, 5), np.uint8))
    assert "differ in size (5x5, 8x8); set data.size to resize them" in refusal("folder", tmp_path)
    assert load("folder", tmp_path, size=8).images.shape[2:] == (8, 8)


def test_folder_that_is_not_square(tmp_path: Path) -> None:
    assert "8x6 pixels; set data.size" in refusal("folder", write_images(tmp_path / "a", GREY[:, :6]))


def test_folder_whose_parts_differ(tmp_path: Path) -> None:
    write_images(tmp_path / "train", GREY)
    write_images(tmp_path / "test", COLOUR[:3])
    assert "(1x8x8 and 3x8x8); set data.size and data.channels" in refusal("folder", tmp_path)
    assert load("folder", tmp_path, channels=3).channels == 3


def test_folder_without_training_images(tmp_path: Path) -> None:
    write_images(tmp_path / "test", GREY)
    assert "no training images" in refusal("folder", tmp_path)


def test_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    assert "no data at" in refusal("folder", tmp_path / "gone")
    assert "no images in" in refusal("folder", tmp_path)
    assert ".jpg" in refusal("folder", tmp_path)
    (tmp_path / "a.txt").write_text("x")
    assert "known suffixes" in refusal("folder", zipped(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no image at all", "half a jpeg", "half a png", "enormous"])
def test_an_unreadable_image_is_named(tmp_path: Path, content: bytes | str) -> None:
    folder = write_images(tmp_path / "set", GREY)
    if content == "enormous":
        Image.new("1", (20000, 20000)).save(folder / "bad.png")
    elif isinstance(content, str):
        file = io.BytesIO()
        noisy = RNG.randint(0, 256, (64, 64)).astype(np.uint8)
        Image.fromarray(noisy).save(file, content.split()[-1])
        (folder / "bad.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    else:
        (folder / "bad.jpg").write_bytes(content)
    for path in (folder, zipped(folder)):
        message = refusal("folder", path)
        assert "bad." in message
        assert "not a readable image" in message
        assert "0x" not in message  # no address of an object


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "flipped", "encrypted", "exotic"])
def test_a_bad_zip_is_refused(tmp_path: Path, damage: str) -> None:
    path = zipped(write_images(tmp_path / "set", GREY))
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        raw = raw[: len(raw) // 2]
    elif damage == "garbage":
        raw = bytearray(b"no zip")
    elif damage == "empty":
        raw = bytearray()
    elif damage == "flipped":
        raw[60] ^= 255  # a byte of the first image: its checksum no longer fits
    local, central = raw.find(b"PK\3\4"), raw.find(b"PK\1\2")
    if damage == "encrypted":
        raw[local + 6] |= 1
        raw[central + 8] |= 1
    elif damage == "exotic":
        raw[local + 8] = raw[central + 10] = 99
    path.write_bytes(raw)
    reason = "is not a readable image: Bad CRC-32" if damage == "flipped" else "neither a folder nor a complete zip"
    assert reason in refusal("folder", path)


# --- the fingerprint --------------------------------------------------------------------------------------------------


def test_fingerprint_knows_each_pixel_and_label_and_no_timestamp(tmp_path: Path) -> None:
    arrays = {
        "train_images": GREY[:20],
        "train_labels": LABELS[:20],
        "test_images": GREY[20:],
        "test_labels": LABELS[20:],
    }

    def fingerprint(**changed: np.ndarray) -> str:
        return load("npz", write_npz(tmp_path / "a.npz", **(arrays | changed))).fingerprint

    original = fingerprint()
    assert len(original) == 64
    assert fingerprint() == original
    for name, array in arrays.items():
        changed = array.copy()
        changed.flat[-1] ^= 1
        assert fingerprint(**{name: changed}) != original, name
    assert fingerprint(train_images=GREY[1:20], train_labels=LABELS[1:20]) != original

    folder = write_images(tmp_path / "set", GREY)
    before = load("folder", folder).fingerprint
    for file in folder.iterdir():
        os.utime(file, (10**9, 10**9))
    assert load("folder", folder).fingerprint == before
    assert load("folder", zipped(folder)).fingerprint == before  # the images decide, not how they are packed


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "fashion-mnist").is_dir(), reason="Fashion-MNIST does not lie beside the repository")
def test_fashion_mnist_has_its_published_shape_mean_and_deviation() -> None:
    data = load("idx", SHARED / "fashion-mnist")
    assert data.images.shape == (60000, 1, 28, 28)
    assert data.held_out_images.shape == (10000, 1, 28, 28)
    assert data.labels is not None
    assert data.held_out_labels is not None
    assert np.bincount(data.labels).tolist() == [6000] * 10
    assert np.bincount(data.held_out_labels).tolist() == [1000] * 10
    assert data.images.mean() / 255 == pytest.approx(0.2860405970, abs=1e-6)
    assert data.images.std() / 255 == pytest.approx(0.3530242445, abs=1e-6)


@pytest.mark.skipif(not (SHARED / "cifar10-jpg").is_dir(), reason="CIFAR-10 does not lie beside the repository")
def test_part_of_cifar_10_as_a_zip_of_jpegs(tmp_path: Path) -> None:
    part = tmp_path / "part.zip"
    with zipfile.ZipFile(SHARED / "cifar10-jpg" / "cifar10-jpg.zip") as whole, zipfile.ZipFile(part, "w") as archive:
        for name in whole.namelist():
            if name.endswith("0007.jpg"):
                archive.writestr(name, whole.read(name))
    data = load("folder", part)
    assert data.images.shape == data.held_out_images.shape == (10, 3, 32, 32)
    assert data.labels is not None
    assert data.labels.tolist() == list(range(10))  # classes in alphabetical order, airplane to truck
