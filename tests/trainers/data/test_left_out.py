"""What people bring: every file is read or counted with its reason, and hostile ones cost no memory."""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data import ImageData, ReadingReport, load_data
from tests.trainers.loading import load, refusal

RNG = np.random.RandomState(0)


def picture(format: str = "PNG", mode: str = "RGB", side: int = 8) -> bytes:
    file = io.BytesIO()
    pixels = RNG.randint(0, 256, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, format)
    return file.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def reasons(report: ReadingReport) -> dict[str, int]:
    assert report.found == report.taken + sum(count for count, _ in report.left_out.values())
    return {reason: count for reason, (count, _) in report.left_out.items()}


PLAIN = {f"{name}/{i}.png": picture() for name in ("a", "b") for i in range(8)}


def count(data: ImageData) -> int:
    return len(data.images) + len(data.held_out_images)


@pytest.mark.parametrize(
    ("more", "read", "left"),
    [
        (
            {"a/.DS_Store": b"x", "b/Thumbs.db": b"x", "a/desktop.ini": b"x"},
            16,
            "1 .DS_Store 1 Thumbs.db 1 desktop.ini",
        ),
        ({"__MACOSX/a/._0.png": b"x", "a/._0.png": b"x", ".git/c/0.png": picture()}, 16, "1 __MACOSX 2 hidden"),
        ({"readme.md": b"x", "a/labels.csv": b"x", "LICENSE": b"x"}, 16, "1 .md 1 .csv 1 without a suffix files"),
        ({"a/scan.dcm": b"x", "a/photo.heic": b"x"}, 16, "1 .dcm 1 .heic"),
        ({f"a/{i}_mask.png": picture() for i in range(8)}, 16, "8 masks beside images"),
        ({"a/x.JFIF": picture("JPEG"), "b/x.pgm": picture("PPM", "L"), "b/y.JP2": picture("JPEG2000")}, 19, ""),
        ({"a/x": picture(), "a/y.jpg_large": picture("JPEG"), "b/z.dat": picture("GIF")}, 19, ""),
        ({"cover.png": picture()}, 16, "1 beside the class folders"),
        ({"a/0.txt": b"x" * 9, "a/inner.zip": b"PK"}, 16, "1 .txt 1 .zip"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_folders_and_zips_read_or_count_each_file(
    tmp_path: Path, more: dict[str, bytes], read: int, left: str, packed: bool
) -> None:
    files = PLAIN | more
    path = zipped(tmp_path / "d.zip", files) if packed else write(tmp_path / "d", files)
    data = load("folder", path)
    assert (count(data), data.classes, data.report.class_names) == (read, 2, ("a", "b"))
    assert data.report.found == len(files)
    expected = {part.strip() for part in re.findall(r"\d+ [^\d]+", left)}
    assert {f"{number} {reason}" for reason, number in reasons(data.report).items()} == expected


def test_mask_folders_beside_image_folders_are_left_out_and_classes_of_such_names_are_not(tmp_path: Path) -> None:
    files = {f"{kind}/{part}/{i}.png": picture() for kind in "ab" for part in ("images", "masks") for i in range(8)}
    data = load("folder", write(tmp_path / "covid", files))
    assert (count(data), data.report.class_names) == (16, ("a", "b"))
    assert reasons(data.report) == {"masks in folders beside images": 16}
    files = {"Training_Data/a/1.jpg": picture("JPEG"), "Training_Data/b/1.jpg": picture("JPEG")}
    files |= {f"Training_Part1_GroundTruth/{i}.png": picture() for i in range(9)} | {"Test_Data/1.jpg": picture("JPEG")}
    data = load("folder", write(tmp_path / "isic", files))
    assert (count(data), data.report.class_names) == (3, ("a", "b"))
    assert reasons(data.report) == {"masks in folders beside images": 9}
    files = {f"{kind}/{i}.png": picture() for kind in ("mask", "no_mask", "with_mask") for i in range(8)}
    data = load("folder", write(tmp_path / "faces", files))
    assert (count(data), data.report.class_names) == (24, ("mask", "no_mask", "with_mask"))


def test_a_grey_png_beside_each_jpg_is_a_mask_and_a_colour_one_is_not(tmp_path: Path) -> None:
    photographs = {f"{i}.jpg": picture("JPEG") for i in range(10)}
    data = load("folder", write(tmp_path / "a", photographs | {f"{i}.png": picture(mode="L") for i in range(10)}))
    assert (count(data), data.channels) == (10, 3)
    assert sum(reasons(data.report).values()) == 10
    assert count(load("folder", write(tmp_path / "b", photographs | {f"{i}.png": picture() for i in range(10)}))) == 20


def test_folders_of_images_within_classes_are_no_classes(tmp_path: Path) -> None:
    files = {f"train/{kind}/images/{i}.png": picture() for kind in ("n01", "n02") for i in range(8)}
    data = load("folder", write(tmp_path / "d", files | {f"val/images/{i}.png": picture() for i in range(8)}))
    assert (data.report.class_names, data.held_out_labels) == (("n01", "n02"), None)


def test_folders_that_are_numbers_say_which_class_each_is(tmp_path: Path) -> None:
    files = {f"{kind}/{i}.png": picture() for kind in (1, 2, 10) for i in range(8)}
    folder = write(tmp_path / "d", files)
    data = load("folder", folder)
    assert data.report.class_names == ("1", "10", "2")
    assert any("folders 1, 10, 2, ... are classes 0 to 2" in note for note in data.report.notes)
    assert load("folder", folder, labels="keep").classes == 11


def test_links_are_followed_once_and_broken_ones_counted(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", PLAIN)
    write(tmp_path / "elsewhere", {f"{i}.png": picture() for i in range(8)})
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "round").symlink_to(folder)
    (folder / "a" / "gone.png").symlink_to(tmp_path / "nowhere")
    (folder / "a" / "self.png").symlink_to(folder / "a" / "self.png")
    (folder / "b" / "same.png").symlink_to(folder / "a" / "0.png")
    os.mkfifo(folder / "b" / "pipe.png")
    data = load("folder", folder, memory_mb=1e-3, cache=str(tmp_path / "cache"))
    assert (count(data), data.report.class_names) == (25, ("a", "b", "c"))
    left = {reason: number for reason, (number, _) in data.report.left_out.items()}
    assert left == {
        "broken links": 2,
        "links to folders that are read already": 1,
        "pipes, sockets and devices": 1,
    }


def test_names_of_any_bytes_are_read_and_shown_in_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", PLAIN)
    for name in (b"caf\xe9.png", b"two\nlines.png", b"\xff\xfe.png"):
        (folder / "a" / os.fsdecode(name)).write_bytes(picture())
    data = load("folder", folder, memory_mb=1e-3, cache=str(tmp_path / "cache"))
    assert count(data) == 19
    (folder / "b" / os.fsdecode(b"bad\xe9\n.png")).write_bytes(b"no picture")
    assert r"bad\xe9\n.png is not a readable image" in refusal("folder", folder)


def test_zips_of_windows_and_names_twice(tmp_path: Path) -> None:
    path = zipped(tmp_path / "d.zip", {name.replace("/", "\\"): content for name, content in PLAIN.items()})
    assert load("folder", path).report.class_names == ("a", "b")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a\\0.png", picture())
    assert reasons(load("folder", path).report) == {"of a name that occurs twice": 1}


@pytest.mark.parametrize("bad", [1, 3])
def test_unreadable_files_are_left_out_up_to_a_share(tmp_path: Path, bad: int) -> None:
    folder = write(tmp_path / "d", PLAIN | {f"a/bad{i}.png": b"" for i in range(bad)})
    message = refusal("folder", folder)
    assert f"a/bad0.png is not a readable image: it is empty; {bad} of {16 + bad} images can't be read" in message
    remedy = float(message.rpartition("data.bad_files=")[2])
    data = load("folder", folder, bad_files=remedy)
    assert count(data) == 16
    assert data.report.headline == (
        f"read 16 images of 2 classes from {16 + bad} files; left out: {bad} ({bad} unreadable: first a/bad0.png)"
    )
    with pytest.raises(InputError):
        load("folder", folder, bad_files=remedy - 0.002)


# --- archives and tables ----------------------------------------------------------------------------------------------


def samples(**others: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for i in range(20):
        files |= {f"{i:03}.png": picture(), f"{i:03}.cls": b"%d" % (i % 2)}
    return files | {name.replace("__", "."): content for name, content in others.items()}


@pytest.mark.parametrize(
    ("files", "read", "left"),
    [
        (samples(), 20, {}),
        (dict(sorted(samples().items(), key=lambda item: item[0][-3:])), 20, {}),  # labels apart
        ({n.replace("png", "5.png").replace("cls", "5.cls"): c for n, c in samples().items()}, 20, {}),
        ({n.replace("png", "final.PNG"): c for n, c in samples().items()}, 20, {}),
        (samples(**{"000__json": b"{}", "001__txt": b"x"}), 20, {".json": 1, ".txt": 1}),
        (samples(**{"000__seg__png": picture(), "001__mask__png": picture()}), 20, {"further pictures of a sample": 2}),
        (samples(**{"._000__png": b"x", ".DS_Store": b"x"}), 20, {"hidden": 1, ".DS_Store": 1}),
        (samples(**{"999__cls": b"1"}), 20, {"labels without an image": 1}),
        ({n.replace("png", "jpg.png").replace("cls", "jpg.cls"): c for n, c in samples().items()}, 20, {}),
    ],
)
def test_tars_find_each_picture_and_its_label(
    tmp_path: Path, files: dict[str, bytes], read: int, left: dict[str, int]
) -> None:
    data = load("webdataset", tarred(tmp_path / "d.tar", files))
    assert (count(data), data.classes) == (read, 2)
    assert reasons(data.report) == left


def test_of_two_pictures_of_a_sample_the_photograph_is_the_image_unless_the_settings_say_so(tmp_path: Path) -> None:
    mask = picture(mode="L")
    files = {f"{i}.{e}": c for i in range(20) for e, c in (("jpg", picture("JPEG")), ("png", mask), ("cls", b"1"))}
    path = tarred(tmp_path / "d.tar", files)
    data = load("webdataset", path)
    assert (count(data), data.channels) == (20, 3)
    assert any("the image is jpg (not png); data.image_key" in note for note in data.report.notes)
    assert load("webdataset", path, image_key="png").channels == 1
    odd = tarred(tmp_path / "odd.tar", {f"{i}.{e}": picture() for i in range(20) for e in ("bmp", "tif")})
    assert "several pictures (bmp, tif); set data.image_key" in refusal("webdataset", odd)


def test_splits_inside_one_archive_or_table_are_found(tmp_path: Path) -> None:
    files = {
        f"{'train' if i % 4 else 'Test'}/{n}": c for i, (n, c) in enumerate(samples().items()) if n.endswith("png")
    }
    data = load("webdataset", tarred(tmp_path / "d.tar", files))
    assert (len(data.images), len(data.held_out_images)) == (10, 10)
    split = ["train"] * 14 + ["validation"] * 2 + ["test"] * 4
    data = load("parquet", hub_table(tmp_path / "d.parquet", split=split))
    assert (len(data.images), len(data.held_out_images)) == (14, 2)


def test_pictures_and_labels_in_any_order_stay_together(tmp_path: Path) -> None:
    shades = {i: Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)) for i in range(20)}
    files: dict[str, bytes] = {}
    for suffix, format in (("png", "PNG"), ("jpg", "JPEG"), ("cls", "")):
        for i in np.random.RandomState(1).permutation(20).tolist():
            file = io.BytesIO()
            shades[i].save(file, format) if format else file.write(b"%d" % (i % 2))
            files[f"{i}.{suffix}"] = file.getvalue()
    data = load("webdataset", tarred(tmp_path / "d.tar", files))
    assert data.labels is not None
    shown = np.round(data.images.mean(axis=(1, 2, 3)) / 10).astype(int)
    assert (shown % 2).tolist() == data.labels.tolist()


def hub_table(path: Path, names: list[str] | None = None, **columns: Any) -> Path:
    images = [{"bytes": picture(), "path": None} for _ in range(20)]
    table = pa.table({"image": images, "label": [i % 3 for i in range(20)]} | columns)
    if names is not None:
        features = {"label": {"_type": "ClassLabel", "names": names}, "image": {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": str({"info": {"features": features}}).replace("'", '"')})
    pq.write_table(table, path)
    return path


def test_tables_of_hubs_give_their_classes_names(tmp_path: Path) -> None:
    data = load("parquet", hub_table(tmp_path / "a.parquet", ["cat", "dog", "cow", "hen"], caption=["x"] * 20))
    assert data.report.class_names == ("cat", "dog", "cow", "hen")
    assert "columns that are not read: caption" in data.report.notes
    assert "as the data names 2 classes" in refusal("parquet", hub_table(tmp_path / "b.parquet", ["cat", "dog"]))
    data = load("parquet", hub_table(tmp_path / "c.parquet", label=["x", "y"] * 10))
    assert data.report.class_names == ("x", "y")
    images = [None] * 2 + [{"bytes": picture(), "path": None} for _ in range(18)]
    path = hub_table(tmp_path / "d.parquet", image=images)
    assert "2 of 20 images can't be read" in refusal("parquet", path)
    assert reasons(load("parquet", path, bad_files=0.1).report) == {"unreadable": 2}


@pytest.mark.parametrize(
    ("names", "held_out"),
    [
        (("x_train", "y_train", "x_test", "y_test"), True),
        (("X_train", "Y_train", "X_val", "Y_val"), True),
        (("xtrain", "ytrain", "xtest", "ytest"), True),
        (("Training_Images", "Training_Labels", "testing_images", "testing_labels"), True),
        (("images", "labels"), False),
        (("arr_0", "arr_1"), False),
    ],
)
def test_arrays_are_found_by_their_names(tmp_path: Path, names: tuple[str, ...], held_out: bool) -> None:
    images, labels = RNG.randint(0, 256, (40, 8, 8, 3)).astype(np.uint8), np.arange(40) % 4
    arrays = [images[:30], labels[:30], images[30:], labels[30:]] if held_out else [images, labels]
    np.savez(tmp_path / "d.npz", **dict(zip(names, arrays, strict=True)))
    data = load("npz", tmp_path / "d.npz")
    assert (count(data), data.classes, data.channels) == (40, 4, 3)
    if held_out:
        assert np.array_equal(data.held_out_labels, labels[30:])


def test_arrays_with_channels_first_or_an_alpha_channel(tmp_path: Path) -> None:
    images = RNG.randint(0, 256, (20, 3, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", images=images, weights=np.ones(3))
    assert {i.tobytes() for i in load("npz", tmp_path / "d.npz").images} <= {i.tobytes() for i in images}
    np.savez(tmp_path / "d.npz", images=np.zeros((20, 8, 8, 4), np.uint8))
    data = load("npz", tmp_path / "d.npz")
    assert (data.images == 255).all()
    assert data.report.changed == {"with transparency (on white)": 20}


# --- hostile files ----------------------------------------------------------------------------------------------------


def test_a_zip_bomb_and_a_sparse_tar_are_refused_by_their_sizes(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in PLAIN.items():
            archive.writestr(name, content)
        with archive.open("a/bomb.png", "w", force_zip64=True) as file:
            for _ in range(300):
                file.write(bytes(1 << 20))
    assert "a/bomb.png is not a readable image: it has more than 256 MB" in refusal("folder", bomb)
    path = tmp_path / "sparse.tar"
    header = tarfile.TarInfo("0.png")
    header.size, header.type = 512, tarfile.GNUTYPE_SPARSE
    raw = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    raw[386:410] = b"%011o\0%011o\0" % (0, 512)
    raw[483:495] = b"%011o\0" % (1 << 32)
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    path.write_bytes(bytes(raw) + bytes(512) + bytes(1024))
    assert "0.png is not a readable image: it has more than 256 MB" in refusal("webdataset", path)


def test_a_tar_whose_name_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.size, header.type = 1 << 32, tarfile.GNUTYPE_LONGNAME
    (tmp_path / "d.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert "not a complete tar archive" in refusal("webdataset", tmp_path / "d.tar")


def test_a_tar_whose_member_claims_a_terabyte_is_refused_at_its_end(tmp_path: Path) -> None:
    header = tarfile.TarInfo("big.png")
    header.size = 1 << 40
    (tmp_path / "d.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert "not a complete tar archive: it ends within a member" in refusal("webdataset", tmp_path / "d.tar")


def test_arrays_and_idx_files_that_claim_more_than_the_memory_are_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive, archive.open("images.npy", "w") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 100, 100)}
        np.lib.format.write_array_header_1_0(file, header)
    assert "images.npy needs 9,537 MB, and data.memory_mb is 4,096" in refusal("npz", tmp_path / "d.npz")
    head = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**31, 2**31, 2**31)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head))
    assert "data.memory_mb is 4,096" in refusal("idx", tmp_path)


def test_a_picture_that_claims_to_be_enormous_is_refused_unread(tmp_path: Path) -> None:
    data = struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(data)) + b"IHDR" + data + struct.pack(">I", zlib.crc32(b"IHDR" + data))
    folder = write(tmp_path / "d", PLAIN | {"a/big.png": b"\x89PNG\r\n\x1a\n" + chunk + picture()[33:]})
    assert "a/big.png is not a readable image" in refusal("folder", folder)


# --- all of it --------------------------------------------------------------------------------------------------------


def test_a_thousand_awkward_files_are_told_in_nine_lines(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for number in range(120):
        kind = ("glioma", "healthy", "no tumour")[number % 3]
        files |= {
            f"Brain/Training/{kind}/{number}.png": picture(),
            f"Brain/Training/{kind}/{number}_mask.png": picture(),
        }
        files |= {f"Brain/Testing/{kind}/{number}.JPG": picture("JPEG"), f"__MACOSX/._{number}.png": b"x"}
        files |= {f"Brain/Training/{kind}/{number}.json": b"{}", f"Brain/extra/{number}.png": picture()}
        files |= {f"Brain/Training/{kind}/.{number}.png": b"x", f"Brain/notes/{number}.txt": b"x"}
    files |= {f"Brain/Training/glioma/u{i}.png": picture(mode="RGBA") for i in range(20)}
    files |= {f"Brain/Training/glioma/g{i}.gif": picture("GIF") for i in range(20)}
    files |= {"Brain/Training/healthy/bad.png": b"", "cover.png": picture()}
    data = load("folder", write(tmp_path / "d", files))
    assert data.report.found == len(files) > 1000 - 2
    assert (len(data.images), len(data.held_out_images)) == (160, 120)
    lines = data.report.lines()
    assert len(lines) <= 9
    assert lines[0].startswith(f"read 280 images of 3 classes from {len(files):,} files; left out: ")
    assert "Training/ (161) trains; Testing/ (120) is held out; " in lines[1]
    assert "extra/ (120)" in lines[1]
    assert lines[2] == "classes: glioma 80, healthy 40, no tumour 40"
    assert ReadingReport.from_json(data.report.to_json()) == data.report


def test_a_refused_dataset_is_told_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", PLAIN | {f"a/bad{i}.png": b"" for i in range(4)})
    report = ReadingReport()
    with pytest.raises(InputError):
        load_data(DataSettings(format="folder", path=str(folder)), report=report)
    assert "4 unreadable" in report.headline


def test_a_cached_reading_tells_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", PLAIN | {"a/notes.txt": b"x"})
    settings = DataSettings(format="folder", path=str(folder), memory_mb=1e-3, cache=str(tmp_path / "cache"))
    first, asked = load_data(settings), ReadingReport()
    assert load_data(settings, report=asked).report == first.report == asked
