"""Read image files of any place: settle their labels, take the share of `data.limit`, then decode one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import ImageStack, Split, Splits
from stepfront.trainers.data.labels import settle_labels
from stepfront.trainers.data.pixels import BadImageError
from stepfront.trainers.data.reading_report import ReadingReport, shown
from stepfront.trainers.data.rows import limited_rows
from stepfront.trainers.data.spill_buffer import Labels, MemoryBudget
from stepfront.trainers.data.splits import choose_held_out, split_files


class Picture(NamedTuple):
    """An image file that is listed but not read yet.  `place` says where its reader finds it."""

    name: str
    place: Any
    label: Any = None


def split_inside(
    pictures: list[Picture], said: Sequence[str], settings: DataSettings, report: ReadingReport
) -> tuple[list[Picture], list[Picture]]:
    """Split pictures by what is said about each: its folder in an archive, or a column of its table."""
    kinds = split_files(said, settings)
    if "train" not in kinds or not {"val", "test"} & set(kinds):
        return pictures, []
    roles = choose_held_out(kinds)
    by_role: dict[str, list[Picture]] = {"train": [], "held_out": [], "unused": []}
    for picture, kind, why in zip(pictures, kinds, said, strict=True):
        by_role[roles[kind]].append(picture)
        report.use(roles[kind], why or "the others")
    for picture in by_role["unused"]:
        report.leave_out("in no split that is used", picture.name)
    return by_role["train"], by_role["held_out"]


Contents: TypeAlias = Callable[[Sequence[Picture]], Iterator[bytes | BadImageError]]
"""Returns the bytes of the given pictures in their order; an error for one that can't be read."""


def read_pictures(
    train: Sequence[Picture],
    held_out: Sequence[Picture] | None,
    contents: Contents,
    settings: DataSettings,
    budget: MemoryBudget,
    class_names: Sequence[str] = (),
) -> Splits:
    """Return both splits decoded; `class_names` are those that the data itself gives to the numbers 0, 1, ...

    Raises InputError for labels that are no classes, and for more unreadable files than `data.bad_files`.
    """
    path = Path(str(settings.path))
    given = _labels(train, settings, path), _labels(held_out or (), settings, path)
    labels = settle_labels(*given, settings, budget.report, str(path), class_names)
    chosen = limited_rows(len(train), labels[0], settings.limit)
    if len(chosen) < len(train):
        budget.report.leave_out("beyond data.limit", count=len(train) - len(chosen))
    numbers = None if labels[0] is None else labels[0][chosen]
    first = _decoded([train[row] for row in chosen], numbers, contents, settings, budget, path)
    return first, _decoded(held_out, labels[1], contents, settings, budget, path) if held_out else None


def _labels(pictures: Sequence[Picture], settings: DataSettings, path: Path) -> list[Any] | None:
    """Return the labels as they were found; None without.  Raises InputError when only some pictures have one."""
    bare = [picture for picture in pictures if picture.label is None]
    if len(bare) == len(pictures) or settings.labels == "ignore":
        return None
    if bare:
        raise InputError(
            f"{path}: {len(pictures)} images but {len(pictures) - len(bare)} labels (none for "
            f"{shown(bare[0].name)}); all or none needed: give the others, or set data.labels=ignore"
        )
    return [picture.label for picture in pictures]


def _decoded(
    pictures: Sequence[Picture],
    labels: Labels | None,
    contents: Contents,
    settings: DataSettings,
    budget: MemoryBudget,
    path: Path,
) -> Split:
    stack = ImageStack(settings, path, budget, len(pictures))
    for number, (picture, content) in enumerate(zip(pictures, contents(pictures), strict=True)):
        stack.add(content, f"{path}: {picture.name}", None if labels is None else int(labels[number]))
    return stack.split()
