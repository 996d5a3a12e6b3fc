"""Labels of every kind: classes from 0 on with their names kept, or one line that says what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.data.labels import note_rare_classes, settle_labels
from stepfront.trainers.data.reading_report import ReadingReport
from stepfront.trainers.data.rows import held_out_rows, limited_rows

KINDS = np.arange(40) % 4


def settled(given: Any, held_out: Any = None, names: Any = (), **settings: Any) -> tuple[Any, Any, ReadingReport]:
    report = ReadingReport()
    first, second = settle_labels(given, held_out, DataSettings(**settings), report, "place", names)
    return first, second, report


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (KINDS, "0 1 2 3"),
        (KINDS.astype(np.uint64), "0 1 2 3"),
        (KINDS.astype(np.float32), "0 1 2 3"),
        (KINDS[:, None], "0 1 2 3"),
        (np.eye(4)[KINDS], "0 1 2 3"),
        (np.eye(4, dtype=bool)[KINDS], "0 1 2 3"),
        (KINDS.tolist(), "0 1 2 3"),
        ([str(kind) for kind in KINDS], "0 1 2 3"),
        (KINDS + 1, "1 2 3 4"),
        (KINDS * 10**12 + 7, "7 1000000000007 2000000000007 3000000000007"),
        (KINDS.astype(np.uint64) + np.uint64(2**63), " ".join(str(2**63 + i) for i in range(4))),
        (np.array(list("abcd"))[KINDS], "a b c d"),
        ([b"abcd"[k : k + 1] for k in KINDS], "a b c d"),
    ],
)
def test_classes_are_numbered_from_0_in_order_and_keep_their_names(given: Any, names: str) -> None:
    first, _, report = settled(given)
    assert first.dtype == np.int64
    assert np.array_equal(first, KINDS)
    assert report.class_names == tuple(names.split())
    said = any("numbered" in note for note in report.notes)
    assert said == (names.split()[0] not in ("0", "a"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (KINDS + 0.5, r"fractions such as 0.5"),
        (np.linspace(0, 0.99, 40), "fractions"),
        (np.where(KINDS == 3, np.nan, KINDS), r"hold nan for 10 of 40 images \(first: image 3\)"),
        (np.full(40, np.inf), "hold inf"),
        ((RNG := np.random.RandomState(0)).randint(0, 2, (40, 14)), "several classes or none"),
        (RNG.rand(40, 4), "neither one number per image nor one-hot"),
        (np.zeros((40, 2, 2)) + KINDS[:, None, None], "neither one number"),
        (KINDS - 1, "hold -1"),
        ([*KINDS[:39].tolist(), None], "40 images but 39 labels"),
        ([[0], [1, 2]] * 20, "several values per image"),
        ([*KINDS[:39].tolist(), "cat"], r"numbers and text \('cat'\)"),
        ([*map(str, KINDS[:39]), "cat"], r"numbers and text \('cat'\)"),
        (["9" * 5000] * 40, "5,000 digits"),
        ([10**30] * 40, "64 bits"),
        (np.arange(40), "40 different labels for 40 images are no classes"),
        (np.arange(200_000) * 2, "at most 100,000"),
        ([""] * 40, "empty"),
        (np.array(["2020-01-01"] * 40, "datetime64[D]"), "datetime64"),
        (np.int64(3), "a number of at least 0"),
    ],
)
def test_what_is_no_class_is_refused_in_one_line_with_the_remedy(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        settled(given)
    assert "\n" not in str(caught.value)
    assert settled(given, labels="ignore")[0] is None


def test_both_splits_share_one_numbering() -> None:
    first, second, report = settled(["b", "c"] * 8, ["a", "c"])
    assert (first[:2].tolist(), second.tolist(), report.class_names) == ([1, 2], [0, 2], ("a", "b", "c"))
    note_rare_classes(first, second, report)
    assert any("1 classes of the held-out images have no training image (a)" in note for note in report.notes)
    with pytest.raises(InputError, match="text in one split and numbers in the other"):
        settled(["b", "c"] * 8, [0, 1])
    first, second, _ = settled(KINDS, np.full(10, -1))  # a test set whose labels are secret
    assert second is None


def test_numbers_with_names_stay_and_may_not_exceed_them() -> None:
    first, _, report = settled(KINDS[KINDS > 1], names=list("abcd"))
    assert (set(first), report.class_names) == ({2, 3}, tuple("abcd"))
    with pytest.raises(InputError, match=r"labels are 0 to 3; 0 to 2 are possible, as the data names 3 classes"):
        settled(KINDS, names=list("abc"))


def test_the_settings_keep_numbers_or_take_every_value() -> None:
    assert set(settled(KINDS * 3, labels="keep")[0]) == {0, 3, 6, 9}
    assert set(settled(KINDS - 1, labels="map")[0]) == {0, 1, 2, 3}
    with pytest.raises(InputError, match="0 to 1000000000; 0 to 99,999 are possible"):
        settled([0, 10**9] * 20, labels="keep")


def test_one_class_and_rare_classes_are_said() -> None:
    first, _, report = settled([7] * 40)
    assert note_rare_classes(first, None, report) == (40,)
    assert "all training images are of one class (7)" in report.notes
    first, _, report = settled([0] * 30 + [1] * 3)
    note_rare_classes(first, None, report)
    assert "1 of 2 classes have fewer than 10 training images (fewest: 1, 3)" in report.notes


def test_a_limit_takes_each_class_in_proportion_and_none_is_lost() -> None:
    labels = np.repeat([0, 1, 2, 3], [60, 30, 9, 1])
    rows = limited_rows(100, labels, 20)
    assert np.bincount(labels[rows]).tolist() == [11, 6, 2, 1] or np.bincount(labels[rows]).tolist() == [12, 6, 1, 1]
    assert len(rows) == 20
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, limited_rows(100, labels, 20))
    assert rows[-1] > 19  # drawn, not the first ones
    assert np.array_equal(limited_rows(100, labels, None), np.arange(100))
    assert len(limited_rows(100, None, 20)) == 20


def test_a_class_of_one_image_stays_in_training() -> None:
    labels = np.arange(40) // 2 * 0
    for lone in range(40):
        labels[:] = 0
        labels[lone] = 1
        used, held = held_out_rows(40, labels, 0.25)
        assert lone in used
        assert sorted([*used, *held]) == list(range(40))


def test_a_sample_of_held_out_images_has_every_class_where_the_reader_went_class_by_class() -> None:
    labels = np.arange(5).repeat(60)
    images = np.zeros((300, 1, 4, 4), np.uint8) + 10 * labels[:, None, None, None].astype(np.uint8)
    data = ImageData("sorted", images, labels, images, labels, "")
    rows = data.held_out_sample(64)
    assert np.bincount(labels[rows], minlength=5).min() >= 5
    assert len(set(rows)) == 64
    assert np.array_equal(rows, data.held_out_sample(64))
    # Losses give each image a time of its own, in order: classes must not follow each other.
    assert len(set(labels[rows[:16]])) == len(set(labels[rows[-16:]])) == 5
    assert sorted(data.held_out_sample(1000)) == list(range(300))
