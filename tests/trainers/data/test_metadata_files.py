"""Labels in a metadata file beside pictures, and what is said of other tables and of tar files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.trainers.data.test_left_out import picture, tarred, write, zipped
from tests.trainers.loading import load, refusal

PICTURES = {f"{i:02}.png": picture() for i in range(40)}
LABELS = ["cat" if i % 4 else "dog" for i in range(40)]


def csv_of(rows: list[tuple[str, str]], columns: str = "file_name,label") -> bytes:
    return "\n".join([columns, *(",".join(row) for row in rows)]).encode()


ROWS = list(zip(PICTURES, LABELS, strict=True))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "zip"])
def test_labels_come_from_a_metadata_file(kind: str, tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"file_name": name, "label": label}) for name, label in ROWS).encode()
    files = PICTURES | ({"metadata.jsonl": lines} if kind == "jsonl" else {"metadata.csv": csv_of(ROWS)})
    place = zipped(tmp_path / "d.zip", files) if kind == "zip" else write(tmp_path / "d", files)
    data = load("folder", place, held_out=0.25)
    assert data.class_names == ("cat", "dog")
    assert data.labels is not None
    assert data.held_out_labels is not None
    assert data.labels.sum() + data.held_out_labels.sum() == LABELS.count("dog")
    assert data.report.headline == "read 40 images of 2 classes from 40 files"
    assert any("labels are read from metadata." in line for line in data.report.guesses)


def test_each_split_has_a_metadata_file_of_its_own_and_numbers_are_classes(tmp_path: Path) -> None:
    rows = [(name, str(i % 3)) for i, name in enumerate(PICTURES)]
    files = {f"{split}/{name}": content for split in ("train", "validation") for name, content in PICTURES.items()}
    files |= {f"{split}/metadata.csv": csv_of(rows) for split in ("train", "validation")}
    data = load("folder", write(tmp_path / "d", files))
    assert data.labels is not None
    assert data.labels.tolist() == [i % 3 for i in range(40)]
    assert len(data.held_out_images) == 40


def test_rows_decide_over_class_folders_and_pictures_without_a_row_are_counted(tmp_path: Path) -> None:
    files = {f"x{i % 2}/{name}": content for i, (name, content) in enumerate(PICTURES.items())}
    rows = [(f"x{i % 2}/{name}", label) for i, (name, label) in enumerate(ROWS)]
    table = csv_of([*rows[:36], ("gone.png", "cat")])
    data = load("folder", write(tmp_path / "d", files | {"metadata.csv": table}))
    assert data.class_names == ("cat", "dog")
    assert "left out: 4 (4 without a row in a metadata file: first x0/36.png)" in data.report.headline
    assert any("1 rows of metadata files name no picture that is read: first gone.png" in n for n in data.report.notes)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (csv_of([*ROWS, ROWS[0]]), "row 41: 00.png has a row already"),
        (csv_of([("", "cat"), *ROWS]), "row 1 names no file in file_name"),
        (csv_of([("00.png", ""), *ROWS[1:]]), "row 1: 00.png has no label"),
        (csv_of([("00.png", "0.5"), *((name, "1") for name in list(PICTURES)[1:])]), "are fractions such as 0.5"),
        (b"file_name,label\n\xff\xfe", "is not UTF-8"),
        (b'file_name,label\n"00.png,cat', "is not a complete CSV file"),
    ],
)
def test_rows_that_are_no_labels_are_refused_in_one_line(table: bytes, words: str, tmp_path: Path) -> None:
    assert words in refusal("folder", write(tmp_path / "d", PICTURES | {"metadata.csv": table}))


@pytest.mark.parametrize("line", [b"{", b"[1]", b'"x"'])
def test_lines_that_are_no_objects_are_refused(line: bytes, tmp_path: Path) -> None:
    assert "metadata.jsonl, line 1 is not" in refusal(
        "folder", write(tmp_path / "d", PICTURES | {"metadata.jsonl": line})
    )


def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    rows = [{"file_name": name, "label": label, "text": "one\u2028two\x85three"} for name, label in ROWS]
    lines = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    data = load("folder", write(tmp_path / "d", PICTURES | {"metadata.jsonl": lines}))
    assert data.class_names == ("cat", "dog")


def test_a_damaged_table_in_a_zip_is_named_in_one_line(tmp_path: Path) -> None:
    place = zipped(tmp_path / "d.zip", PICTURES | {"metadata.csv": csv_of(ROWS)})
    content = place.read_bytes()
    with zipfile.ZipFile(place) as archive:
        entry = archive.getinfo("metadata.csv")
    begin = entry.header_offset + 30 + len(entry.filename)
    place.write_bytes(content[:begin] + b"\xff" * entry.compress_size + content[begin + entry.compress_size :])
    assert "metadata.csv can't be read" in refusal("folder", place)


def test_a_column_of_another_name_is_asked_for_and_named_by_label_key(tmp_path: Path) -> None:
    place = write(tmp_path / "d", PICTURES | {"metadata.csv": csv_of(ROWS, "file_name,animal")})
    plain = load("folder", place)
    assert plain.labels is None
    assert any("data.label_key names the one of classes (it has: animal)" in note for note in plain.report.guesses)
    assert load("folder", place, label_key="animal").class_names == ("cat", "dog")
    assert load("folder", place, labels="ignore").labels is None


@pytest.mark.parametrize("name", ["labels.csv", "annotations.json"])
def test_another_table_beside_unlabelled_pictures_is_not_passed_over_in_silence(name: str, tmp_path: Path) -> None:
    data = load("folder", write(tmp_path / "d", PICTURES | {name: b"x"}))
    (note,) = [note for note in data.report.guesses if name in note]
    assert note.startswith(f"{name} is not read; where it holds labels, call it metadata.csv or metadata.jsonl")


def test_a_tar_file_is_sent_to_its_format(tmp_path: Path) -> None:
    place = tarred(tmp_path / "d.tar", PICTURES)
    assert "is a tar file; set data.format: webdataset" in refusal("folder", place)
    assert "it has 1 (1 .tar)" in (line := refusal("folder", tmp_path))
    assert "set data.format: webdataset to read tar files" in line
