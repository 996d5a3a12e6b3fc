"""What trains, what is held out and what is a class, told by names: folders of real life, and the settings' word."""

from __future__ import annotations

import pytest

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.formats.folder import _listed
from stepfront.trainers.data.reading_report import ReadingReport
from stepfront.trainers.data.splits import choose_held_out, kind_of, split_files


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "train",
            "train Train TRAINING training_set trainset train2017 seg_train imagesTr Train-Images trainval t1_train",
        ),
        ("val", "val Valid VALIDATION dev devset val2017 my-validation-00000 held_out Holdout"),
        ("test", "test Testing TEST testset eval evaluation mnist_test t10k-images cats-test-00000-of-00001 imagesTs"),
        (
            None,
            "testament values latest contest pretrained trains valley developer cat train_test attest 0000 interval",
        ),
    ],
)
def test_a_name_says_its_split_as_a_word_of_its_own(kind: str | None, names: str) -> None:
    assert {name: kind_of(name) for name in names.split()} == dict.fromkeys(names.split(), kind)


def read(layout: str, **settings: object) -> tuple[dict[str, str], dict[str, str], dict[str, str], ReadingReport]:
    """Return what trains, what is held out (each by its class) and what is left out (by its reason)."""
    names = sorted(layout.split())
    report = ReadingReport()
    given = DataSettings(format="folder", path="place", **settings)  # type: ignore[arg-type]
    train, held_out, classes = _listed(names, given, report, given.path)  # type: ignore[arg-type]
    first, second = ({p.name: "" if p.label is None else classes[p.label] for p in part} for part in (train, held_out))
    left = {name: reason for reason, (_, name) in report.left_out.items()}
    assert len(first) + len(second) + sum(count for count, _ in report.left_out.values()) == len(names)
    return first, second, left, report


TWO = "{0}/a/1.png {0}/b/1.png"


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("TRAIN", "Valid"),
        ("train_images", "test_images"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("archive/data/train", "archive/data/eval"),
        ("x/Train Data".replace(" ", "_"), "x/Dev_Data"),
        ("train2017", "val2017"),
        ("asl_alphabet_train", "asl_alphabet_test"),
        ("train/images", "test/images"),
        ("images/train", "images/val"),
        ("a1/train", "a2/test"),
    ],
)
@pytest.mark.parametrize("stray", ["", " readme.png", " pred/9.png"])
def test_folders_of_two_classes_in_two_splits(train: str, held_out: str, stray: str) -> None:
    layout = f"{TWO.format(train)} {TWO.format(held_out)}"
    first, second, left, _ = read(layout + stray)
    assert first == {f"{train}/a/1.png": "a", f"{train}/b/1.png": "b"}
    assert second == {f"{held_out}/a/1.png": "a", f"{held_out}/b/1.png": "b"}
    assert left == ({stray.strip(): "in no split"} if stray else {})


@pytest.mark.parametrize(
    ("layout", "train", "held_out"),
    [
        # a flat test folder is no class, beside splits or beside classes
        ("train/a/1.png train/b/1.png test/1.png", "a b", "-"),
        ("a/1.png b/1.png test/1.png", "a b", "-"),
        ("a/1.png b/1.png Test/a/1.png Test/b/1.png", "a b", "a b"),
        # splits within classes
        ("a/train/1.png a/test/1.png b/train/1.png b/test/1.png", "a b", "a b"),
        # classes in the names of the splits
        ("trainA/1.png trainB/1.png testA/1.png testB/1.png", "a b", "a b"),
        # file names alone
        ("train_1.png train_2.png test_1.png", "- -", "-"),
        ("a/train_1.png b/train_1.png a/test_1.png", "a b", "a"),
        ("1.png 2.png test_1.png", "- -", "-"),
        # the names of splits as classes
        ("bus/1.png car/1.png train/1.png", "bus car train", ""),
        ("train/bus/1.png train/train/1.png test/bus/1.png test/train/1.png", "bus train", "bus train"),
        ("test_tube/1.png bottle/1.png", "bottle test_tube", ""),
        # a small validation split is joined by the test split
        ("train/a/1.png train/b/1.png val/a/1.png test/b/1.png test/b/2.png", "a b", "b b a"),
        # one folder around everything, one class, no class
        ("all/a/1.png all/b/1.png", "a b", ""),
        ("all/a/1.png all/a/2.png", "- -", ""),
        ("a/images/1.png b/images/1.png", "a b", ""),
        ("a/x/1.png b/y/1.png", "a/x b/y", ""),
    ],
)
def test_layouts_of_real_life(layout: str, train: str, held_out: str) -> None:
    first, second, _, _ = read(layout)
    assert [name or "-" for name in first.values()] == train.split()
    assert [name or "-" for name in second.values()] == held_out.split()


def test_a_validation_split_goes_before_a_test_split() -> None:
    held = " ".join(f"{split}/{name}/{i}.png" for split in ("val", "test") for name in "ab" for i in range(20))
    _, second, left, _ = read(f"train/a/1.png train/b/1.png {held}")
    assert len(second) == 40
    assert all(name.startswith("val/") for name in second)
    assert set(left.values()) == {"in a test split beside a validation split"}


def test_a_stray_picture_beside_classes_is_left_out_and_many_make_no_classes() -> None:
    classes = " ".join(f"{name}/{i}.png" for name in "ab" for i in range(5))
    first, _, left, _ = read(f"{classes} cover.png")
    assert (set(first.values()), left) == ({"a", "b"}, {"cover.png": "beside the class folders"})
    first, _, left, report = read(" ".join(f"{i}.png" for i in range(20)) + " extra/1.png more/1.png")
    assert (set(first.values()), left, len(first)) == ({""}, {}, 22)
    assert "20 pictures stand beside 2 folders" in report.notes[0]


@pytest.mark.parametrize(
    ("splits", "train", "held_out"),
    [
        ({}, "a b test", ""),
        ({"test": "unused"}, "a b", ""),
        ({"B": "held_out", "test": "unused"}, "-", "-"),
        ({"t*": "held_out"}, "a b", "-"),
        ({"a": "train", "test": "held_out"}, "-", "-"),
    ],
)
def test_the_settings_have_the_last_word(splits: dict[str, str], train: str, held_out: str) -> None:
    first, second, _, _ = read("a/1.png b/1.png test/1.png", splits=splits)
    assert [name or "-" for name in first.values()] == train.split()
    assert [name or "-" for name in second.values()] == held_out.split()


def test_what_may_be_a_class_or_a_split_is_asked_for() -> None:
    for layout in (
        "train/a/1.png plane/b/1.png",
        "train/1.png test/1.png cat/1.png dog/1.png cow/1.png hen/1.png pig/1.png",
    ):
        with pytest.raises(InputError, match=r"set data\.splits"):
            read(layout)


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        ("mnist_train.parquet mnist_test.parquet", "train held_out"),
        ("data/training.tar data/testing.tar", "train held_out"),
        ("train.tar eval.tar dev.tar", "train unused held_out"),
        ("0000.tar 0001.tar val_0.tar", "train train held_out"),
        ("train-0.tar extra-0.tar test-0.tar", "train unused held_out"),
        ("testament.parquet values.parquet", "train train"),
        ("test/train-0.tar val/a.tar", "train held_out"),
    ],
)
def test_files_are_split_by_their_own_names_and_then_by_their_folders(names: str, roles: str) -> None:
    kinds = split_files(names.split(), DataSettings())
    assert [choose_held_out(kinds)[kind] for kind in kinds] == roles.split()
