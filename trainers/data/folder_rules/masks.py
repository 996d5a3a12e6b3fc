"""Tell masks from images, by the names of files and folders, and leave them out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from stepfront.trainers.data.reading_report import ReadingReport
from stepfront.trainers.data.splits import kind_of, names_a_split, tokens

_MOST_WITH_TWINS = 0.9
_BESIDE_MASK_WORDS = ("images", "image", "img", "tr", "ts", "fine", "coarse")
IMAGE_FOLDERS = {
    *("images", "image", "imgs", "img", "jpegimages", "frames", "photos", "pictures", "originals", "original", "input"),
}
_MASK_WORDS = {
    *("mask", "masks", "annotation", "annotations", "label", "labels", "seg", "segmentation", "segmentations"),
    *("segmentationclass", "segmentationobject", "groundtruth", "gt", "trimap", "trimaps", "ground", "truth"),
}
_MASK_STEM = re.compile(
    r"(.+?)[ _.-]+(mask|seg|segmentation|gt|groundtruth|label|annotation|trimap)s?([ _-]?\d+)?", re.IGNORECASE
)


def without_masks(names: list[str], head: Callable[[str], bytes], report: ReadingReport) -> list[str]:
    """Leave out masks: `x_mask.png` beside `x.png`, `x.png` beside `x.jpg`, and folders such as masks/ by images/."""
    stems = {stem_of(name) for name in names}
    folders = {name.rpartition("/")[0] for name in names}
    with_images = {_parent(part) for folder in folders for part in _parts(folder) if _is_image_folder(part)}
    of_splits = {(_parent(p), kind_of(_last(p))) for f in folders for p in _parts(f) if not _has_mask_word(p)}
    masks = {
        f
        for f in folders
        if any(
            (_is_mask_folder(p) and _parent(p) in with_images)
            or (_has_mask_word(p) and kind_of(_last(p)) and (_parent(p), kind_of(_last(p))) in of_splits)
            for p in _parts(f)
        )
    }
    twins = _twins(names, head)
    found = []
    for name in names:
        match = _MASK_STEM.fullmatch(stem_of(name).rpartition("/")[2])
        if name in twins:
            report.leave_out("grey or palette .png beside a .jpg of the same name, as masks are", name)
        elif match and f"{_parent(name)}/{match[1]}".lstrip("/") in stems:
            report.leave_out("masks beside images", name)
        elif _parent(name) in masks:
            report.leave_out("masks in folders beside images", name)
        else:
            found.append(name)
    return found


def _twins(names: Sequence[str], head: Callable[[str], bytes]) -> set[str]:
    """Return the .png files beside a .jpg of the same name, where nearly each .jpg has one and none is in colour."""
    photographs = {stem_of(name) for name in names if name.lower().endswith((".jpg", ".jpeg"))}
    twins = [name for name in names if name.lower().endswith(".png") and stem_of(name) in photographs]
    if not twins or len(twins) < _MOST_WITH_TWINS * len(photographs):
        return set()
    grey_or_palette = (0, 3)  # the colour type in the header of a PNG
    return (
        set(twins) if all(head(name)[25:26] in map(bytes, ([n] for n in grey_or_palette)) for name in twins) else set()
    )


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _has_mask_word(folder: str) -> bool:
    return bool(_MASK_WORDS & set(tokens(_last(folder))))


def stem_of(name: str) -> str:
    """Return a file's path without its last suffix."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.rpartition('.')[0] or last}"


def _parts(folder: str) -> list[str]:
    """Return a folder and all folders around it: a, a/b, a/b/c."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _is_image_folder(folder: str) -> bool:
    last = _last(folder)
    words = set(tokens(last))
    named = last.lower() in IMAGE_FOLDERS or bool(words & {"images", "imgs", "img", "image"})
    return (named and not words & _MASK_WORDS) or names_a_split(last)


def _is_mask_folder(folder: str) -> bool:
    words = [word for word in tokens(_last(folder)) if kind_of(word) is None and word not in _BESIDE_MASK_WORDS]
    return bool(words) and set(words) <= _MASK_WORDS
