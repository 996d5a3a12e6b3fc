"""CIFAR archives made here in every form in which they are distributed; one form checks the other."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainers.loading import load, refusal

RNG = np.random.RandomState(0)
IMAGES = RNG.randint(0, 256, (70, 3, 32, 32)).astype(np.uint8)
LABELS = RNG.randint(0, 10, 70)
COARSE, FINE = RNG.randint(0, 20, 70), np.arange(70) + 30


def legacy_pickle(fields: dict[str, Any]) -> bytes:
    """As Python 2 and numpy 1 wrote the real files: protocol 2, byte strings, numpy.core."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text  # SHORT_BINSTRING: what Python 2's str becomes

    def long(text: bytes) -> bytes:
        return b"T" + len(text).to_bytes(4, "little") + text  # BINSTRING

    def array(a: np.ndarray) -> bytes:
        rows, columns = a.shape
        kind = (
            b"cnumpy\ndtype\n("
            + short(b"u1")
            + b"K\0K\1tR(K\3"
            + short(b"|")
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        )
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0t" + short(b"b") + b"tR"
        shape = b"(J" + rows.to_bytes(4, "little") + b"J" + columns.to_bytes(4, "little") + b"t"
        return empty + b"(K\1" + shape + kind + b"\x89" + long(a.tobytes()) + b"tb"

    packed = b"\x80\2}("
    for name, value in fields.items():
        packed += short(name.encode())
        packed += (
            array(value) if isinstance(value, np.ndarray) else b"](" + b"".join(b"K" + bytes([v]) for v in value) + b"e"
        )
    return packed + b"u."


def modern_pickle(fields: dict[str, Any]) -> bytes:
    return pickle.dumps(fields, protocol=4)


def python_2_from_3(fields: dict[str, Any]) -> bytes:
    return pickle.dumps({name.encode(): value for name, value in fields.items()}, protocol=2)


def rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def cifar10_python(pack: Callable[[dict[str, Any]], bytes] = legacy_pickle) -> dict[str, bytes]:
    """Twelve batches of five images, so that 10 sorts behind 9 only as a number; ten test images."""
    files = {"batches.meta": b"no batch", "readme.html": b"<html>"}
    for i in range(12):
        part = slice(5 * i, 5 * i + 5)
        files[f"data_batch_{i + 1}"] = pack({"data": rows(IMAGES[part]), "labels": LABELS[part].tolist()})
    files["test_batch"] = pack({"data": rows(IMAGES[60:]), "labels": LABELS[60:].tolist()})
    return files


def cifar10_binary() -> dict[str, bytes]:
    table = np.concatenate([LABELS[:, None].astype(np.uint8), rows(IMAGES)], axis=1)
    batches = {f"data_batch_{i + 1}.bin": table[5 * i : 5 * i + 5].tobytes() for i in range(12)}
    return {"batches.meta.txt": b"airplane\n", **batches, "test_batch.bin": table[60:].tobytes()}


def cifar100_python(pack: Callable[[dict[str, Any]], bytes] = legacy_pickle) -> dict[str, bytes]:
    def batch(part: slice) -> bytes:
        labels = {"coarse_labels": COARSE[part].tolist(), "fine_labels": FINE[part].tolist()}
        return pack({**labels, "data": rows(IMAGES[part])})

    return {"meta": b"no batch", "train": batch(slice(60)), "test": batch(slice(60, 70))}


def cifar100_binary() -> dict[str, bytes]:
    labels = np.stack([COARSE, FINE], axis=1).astype(np.uint8)
    table = np.concatenate([labels, rows(IMAGES)], axis=1)
    return {"train.bin": table[:60].tobytes(), "test.bin": table[60:].tobytes(), "fine_label_names.txt": b"apple\n"}


def as_folder(place: Path, files: dict[str, bytes]) -> Path:
    folder = place / "cifar-batches"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def as_archive(place: Path, files: dict[str, bytes]) -> Path:
    # Backwards, as the order within an archive means nothing.
    path = place / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in reversed(files.items()):
            member = tarfile.TarInfo(f"cifar-batches/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("place", [as_folder, as_archive])
@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (cifar10_python(), LABELS),
        (cifar10_python(modern_pickle), LABELS),
        (cifar10_python(python_2_from_3), LABELS),
        (cifar10_binary(), LABELS),
        (cifar100_python(), FINE),
        (cifar100_python(modern_pickle), FINE),
        (cifar100_binary(), FINE),
    ],
)
def test_every_form_gives_the_same_images_in_order_with_their_labels(
    tmp_path: Path, place: Callable[[Path, dict[str, bytes]], Path], files: dict[str, bytes], labels: np.ndarray
) -> None:
    data = load("cifar", place(tmp_path, files))
    assert np.array_equal(data.images, IMAGES[:60])
    assert np.array_equal(data.held_out_images, IMAGES[60:])
    assert np.array_equal(data.labels, labels[:60])
    assert np.array_equal(data.held_out_labels, labels[60:])
    assert data.images.flags.writeable


def test_names_of_classes_are_read_other_files_are_counted_and_splits_are_the_settings(tmp_path: Path) -> None:
    names = [b"airplane", b"bird", b"car", b"deer", b"dog", b"frog", b"hen", b"horse", b"ship", b"truck"]
    files = cifar10_python() | {"batches.meta": pickle.dumps({b"label_names": names}, 2)}
    for place in (as_folder(tmp_path, files), as_archive(tmp_path, files)):
        data = load("cifar", place)
        assert data.class_names == tuple(name.decode() for name in names)
        assert data.report.left_out == {".html": (1, next(iter(data.report.left_out.values()))[1])}
        assert data.report.found == 71
    data = load("cifar", tmp_path / "cifar-batches", splits={"data_batch_1": "held_out", "test_batch": "unused"})
    assert (len(data.images), len(data.held_out_images)) == (55, 5)


def test_the_folder_around_the_batches_will_do_and_two_of_them_will_not(tmp_path: Path) -> None:
    as_folder(tmp_path / "a", cifar10_binary())
    assert len(load("cifar", tmp_path).images) == 60
    as_folder(tmp_path / "b", cifar10_python())
    assert "more than one CIFAR: a/cifar-batches, b/cifar-batches; name one" in refusal("cifar", tmp_path)


def test_an_array_stored_by_columns_is_the_same_array(tmp_path: Path) -> None:
    def by_columns(fields: dict[str, Any]) -> bytes:
        return modern_pickle(fields | {"data": np.asfortranarray(fields["data"])})

    assert np.array_equal(load("cifar", as_folder(tmp_path, cifar100_python(by_columns))).images, IMAGES[:60])


def test_without_a_test_batch_images_are_held_out(tmp_path: Path) -> None:
    files = cifar10_binary()
    del files["test_batch.bin"]
    data = load("cifar", as_folder(tmp_path, files), held_out=0.25, channels=1, size=16)
    assert data.images.shape == (45, 1, 16, 16)
    assert len(data.held_out_images) == 15


def write(tmp_path: Path, **fields: Any) -> Path:
    good = {"data": rows(IMAGES), "labels": LABELS.tolist()}
    content = modern_pickle({name: value for name, value in (good | fields).items() if value is not None})
    return as_folder(tmp_path, {"data_batch_1": content})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data": None}, "it has no 'data'"),
        ({"labels": None}, "it has no 'labels'"),
        ({"data": rows(IMAGES)[:, :-1]}, "not an array \\[N, 3072\\] of bytes"),
        ({"data": rows(IMAGES).astype(np.float32)}, "an array of 'f4', not of bytes"),
        ({"data": [1, 2]}, "not an array"),
        ({"data": np.array([None])}, "an array of 'O8', not of bytes"),
        ({"labels": LABELS.tolist()[:-1]}, "70 images but 69 labels"),
        ({"labels": [-1] * 70}, "labels are not a list of numbers of at least 0"),
        ({"labels": ["cat"] * 70}, "labels are not a list of numbers of at least 0"),
    ],
)
def test_a_batch_of_something_else_says_what_is_wrong(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    message = refusal("cifar", write(tmp_path, **fields))
    assert "data_batch_1 is not a CIFAR batch" in message
    assert reason.replace("\\", "") in message


def test_nothing_that_a_pickle_names_is_ever_called(tmp_path: Path, trap: tuple[object, Path]) -> None:
    bomb, witness = trap
    for content in (bomb, {"data": bomb}, {"data": rows(IMAGES), "labels": [bomb]}, {"extra": np.array([bomb])}):
        path = write(tmp_path)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            (path / "data_batch_1").write_bytes(pickle.dumps(content, protocol))
            assert "data_batch_1 is not a CIFAR batch: it names " in refusal("cifar", path)
        (path / "data_batch_1").unlink()
        path.rmdir()
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\2}(U", legacy_pickle({"labels": [1]})[:-3], b"I1\n."])
def test_a_damaged_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "data_batch_1 is not a CIFAR batch: " in refusal("cifar", as_folder(tmp_path, {"data_batch_1": content}))


@pytest.mark.parametrize("content", [b"", b"\0" * 3072, cifar10_binary()["data_batch_1.bin"][:-1]])
def test_a_binary_batch_of_no_whole_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    message = refusal("cifar", as_folder(tmp_path, {"data_batch_1.bin": content}))
    assert f"data_batch_1.bin is incomplete: {len(content)} bytes are not a multiple of the row size 3073" in message


@pytest.mark.parametrize("damage", ["half", "last bytes", "flipped", "garbage", "empty", "gzip of garbage"])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: str) -> None:
    path = as_archive(tmp_path, cifar10_binary())
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    damaged = {
        "half": whole[: len(whole) // 2],
        "last bytes": whole[:-6],
        "flipped": bytes(flipped),
        "garbage": b"no archive",
        "empty": b"",
        "gzip of garbage": gzip.compress(b"no archive"),
    }
    path.write_bytes(damaged[damage])
    assert "not a complete tar archive" in refusal("cifar", path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no data at" in refusal("cifar", tmp_path / "gone")
    assert "expected data_batch_1 (or train) and test_batch (or test)" in refusal("cifar", tmp_path)
    assert "no CIFAR batches" in refusal("cifar", as_archive(tmp_path, {"readme": b""}))
