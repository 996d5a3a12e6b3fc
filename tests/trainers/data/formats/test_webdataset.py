"""Tar files of KEY.png and KEY.cls, made here."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainers.loading import load, refusal

RNG = np.random.RandomState(0)
COLOUR = RNG.randint(0, 256, (24, 8, 8, 3)).astype(np.uint8)
LABELS = np.arange(24) % 3


def encoded(pixels: np.ndarray, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, lossless=True)
    return file.getvalue()


def samples(part: slice, suffix: str = "png", labels: bool = True) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for i in range(24)[part]:
        files[f"n01/{i:04d}.{suffix}"] = encoded(COLOUR[i], {"png": "PNG", "webp": "WEBP"}[suffix.lower()])
        files[f"n01/{i:04d}.json"] = b"{}"
        if labels:
            files[f"n01/{i:04d}.cls"] = b"%d\n" % LABELS[i]
    return files


def write(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", ["png", "PNG", "webp"])
@pytest.mark.parametrize("names", [("train-0.tar", "train-1.tar", "val-0.tar"), ("a.tgz", "b.tar.gz", "test/0.tar")])
def test_shards_in_order_with_labels_and_their_own_split(
    tmp_path: Path, names: tuple[str, str, str], suffix: str
) -> None:
    for name, part in zip(names, (slice(0, 11), slice(11, 20), slice(20, 24)), strict=True):
        write(tmp_path / name, samples(part, suffix))
    data = load("webdataset", tmp_path)
    assert np.array_equal(data.images, COLOUR[:20].transpose(0, 3, 1, 2))
    assert np.array_equal(data.held_out_images, COLOUR[20:].transpose(0, 3, 1, 2))
    assert np.array_equal(data.labels, LABELS[:20])
    assert np.array_equal(data.held_out_labels, LABELS[20:])


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_jpegs_are_what_pillow_decodes(tmp_path: Path, suffix: str) -> None:
    files = {f"{i}.{suffix}": encoded(COLOUR[i], "JPEG") for i in range(20)}
    write(tmp_path / "train.tar", files)
    write(tmp_path / "test.tar", {"0.png": encoded(COLOUR[0])})
    expected = [np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1) for content in files.values()]
    data = load("webdataset", tmp_path)
    assert np.array_equal(data.images, expected)
    assert data.labels is None


def test_a_label_before_its_image_and_keys_with_dots_in_folders(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for i in range(20):
        files |= {f"./v1.0/{i}.cls": b"%d" % LABELS[i], f"./v1.0/{i}.png": encoded(COLOUR[i])}
    data = load("webdataset", write(tmp_path / "a.tar", files), held_out=0.1)
    assert data.labels is not None
    label_of = {COLOUR[i].transpose(2, 0, 1).tobytes(): LABELS[i] for i in range(20)}
    assert [label_of[image.tobytes()] for image in data.images] == data.labels.tolist()
    assert len(data.images) == 18


def test_one_file_without_labels_and_a_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", samples(slice(0, 24), labels=False))
    data = load("webdataset", path, limit=16, held_out=0.25)
    assert (len(data.images), len(data.held_out_images)) == (12, 4)
    whole = {image.transpose(2, 0, 1).tobytes() for image in COLOUR}
    assert len({image.tobytes() for image in (*data.images, *data.held_out_images)} & whole) == 16
    assert data.labels is None


def test_samples_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    whole = samples(slice(0, 20))
    write(path, {name: content for name, content in whole.items() if name != "n01/0007.cls"})
    assert "20 images but 19 labels (none for n01/0007.png)" in refusal("webdataset", path)
    messages = {
        b"cat": "numbers and text",
        b"-1": "hold -1",
        b"": "0007.cls holds b''",
        b"1.5": "fractions such as 1.5",
    }
    messages |= {
        b"9" * 900: "numbers of up to 900 digits",
        b"9" * 5000: "0007.cls holds a label of more than 1,000 bytes",
    }
    for content, message in messages.items():
        write(path, whole | {"n01/0007.cls": content})
        assert message in refusal("webdataset", path)
    write(path, whole | {"n01/0007.png": b"no image"})
    assert "n01/0007.png is not a readable image" in refusal("webdataset", path)
    write(path, {"readme.txt": b""})
    assert "no training images" in refusal("webdataset", path)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("damage", ["half", "after a member", "garbage", "empty"])
def test_a_damaged_archive_is_named(tmp_path: Path, name: str, damage: str) -> None:
    path = write(tmp_path / name, samples(slice(0, 24)))
    whole = path.read_bytes()
    raw = gzip.decompress(whole) if name.endswith("gz") else whole
    cut = raw[: raw.index(b"n01/0012.png")]  # the archive of twelve whole samples, but for the mark of its end
    cut = gzip.compress(cut) if name.endswith("gz") else cut
    damaged = {"half": whole[: len(whole) // 2], "after a member": cut, "garbage": b"no archive", "empty": b""}
    path.write_bytes(damaged[damage])
    assert f"{name} is not a complete tar archive" in refusal("webdataset", path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no data at" in refusal("webdataset", tmp_path / "gone")
    assert "expected .tar or .tar.gz or .tgz files" in refusal("webdataset", tmp_path)
