"""Read `webdataset`: tar files with KEY.png (or another picture) and KEY.cls; one file or a folder of them.

Each archive is read twice: the first pass finds samples and labels, which may stand in any order, the second decodes.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Splits
from stepfront.trainers.data.formats.archive import tar_members
from stepfront.trainers.data.formats.file_tree import TAR_SUFFIXES, find_shards, suffix_of, system_name
from stepfront.trainers.data.formats.pictures import Picture, read_pictures, split_inside
from stepfront.trainers.data.pixels import MOST_FILE_BYTES, TOO_LARGE, BadImageError, picture_suffixes
from stepfront.trainers.data.reading_report import ReadingReport, shown
from stepfront.trainers.data.spill_buffer import MemoryBudget

_LABELS = ("cls", "cls.txt", "class", "label", "label.txt", "index.txt")
_ROLES = {
    *("seg", "mask", "image", "img", "input", "output", "target", "depth", "normal", "thumb", "thumbnail", "rgb"),
    *("cls", "label", "class", "gt", "jpg", "png", "photo", "edge", "edges", "left", "right", "condition", "original"),
    *("index",),
}
_IMAGE_ORDER = ("jpg", "jpeg", "webp", "png")
_IMAGE_ROLES = ("image", "img", "input", "rgb", "photo", "original")
_MOST_LABEL_BYTES = 1000


class _Member(NamedTuple):
    key: str
    extension: str
    name: str


def read_webdataset(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read samples in the order of the archives; other members of a sample (json, txt) are counted."""
    path, report = Path(str(settings.path)), budget.report
    shards = find_shards(path, TAR_SUFFIXES, settings, report)
    report.unit = "members of tar archives"
    train = [picture for file in shards.train for picture in _samples(file, settings, report)]
    held_out = [picture for file in shards.held_out for picture in _samples(file, settings, report)]
    if not held_out:
        train, held_out = split_inside(train, [_folder(picture.name) for picture in train], settings, report)

    def contents(pictures: Sequence[Picture]) -> Iterator[bytes | BadImageError]:
        for file, chosen in groupby(pictures, key=lambda picture: picture.place[0]):
            yield from _contents(file, [picture.place[1] for picture in chosen])

    return read_pictures(train, held_out or None, contents, settings, budget)


def _folder(name: str) -> str:
    return name.rpartition(": ")[2].rpartition("/")[0]


def _contents(file: Path, numbers: list[int]) -> Iterator[bytes | BadImageError]:
    """Yield the members of these positions in the archive."""
    wanted, position = set(numbers), -1

    def is_wanted(_: tarfile.TarInfo) -> bool:
        nonlocal position
        position += 1
        return position in wanted

    for _, content in tar_members(file, is_wanted, MOST_FILE_BYTES):
        yield BadImageError(TOO_LARGE) if content is None else content


@dataclass
class _Index:
    """What the first pass over an archive finds: pictures with their positions, and labels by key."""

    settings: DataSettings
    report: ReadingReport
    pictures: list[tuple[_Member, int]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    position: int = -1
    label_key: str = ""

    def wants(self, member: tarfile.TarInfo) -> bool:
        """Take a picture, count what is none, and return whether the member is a label, whose content is needed."""
        self.position += 1
        if member.isdir():
            return False
        self.report.found += 1
        found = _parsed(member.name)
        if (hidden := system_name(found.name)) or not member.isreg():
            self.report.leave_out(hidden or "links", member.name)
        elif _is_label(found.extension, self.settings):
            self.report.found -= 1  # it is part of its sample
            self.label_key = found.key
            return True
        elif f".{found.extension.rpartition('.')[2]}" in picture_suffixes():
            self.pictures.append((found, self.position))
        else:
            self.report.leave_out(suffix_of(member.name), member.name)
        return False

    def samples(self, file: Path, prefix: str) -> list[Picture]:
        """Return one picture per sample with its label, in the archive's order."""
        used, samples = set(), []
        for member, position in _one_per_sample(self.pictures, self.settings, self.report, file):
            key = _labelled_key(member.key, self.labels)
            used.add(key)
            samples.append(Picture(prefix + member.name, (file, position), self.labels.get(key)))
        if spare := sorted(self.labels.keys() - used):
            self.report.found += len(spare)
            self.report.leave_out("labels without an image", spare[0], len(spare))
        return samples


def _samples(file: Path, settings: DataSettings, report: ReadingReport) -> list[Picture]:
    """Return the pictures of an archive with the labels of their keys, in the archive's order."""
    index = _Index(settings, report)
    for name, content in tar_members(file, index.wants, MOST_FILE_BYTES):
        index.labels[index.label_key] = _label(content, f"{file}: {name}")
    return index.samples(file, "" if file == Path(str(settings.path)) else f"{file.name}: ")


def _is_label(extension: str, settings: DataSettings) -> bool:
    if settings.label_key is not None or settings.labels == "ignore":
        return settings.labels != "ignore" and extension == settings.label_key
    return extension in _LABELS or extension.rpartition(".")[2] in _LABELS


def _parsed(name: str) -> _Member:
    """Split a name into key and extension: 0001.5.png is png of 0001.5, and 0001.seg.png is seg.png of 0001."""
    plain = name.removeprefix("./")
    folder, slash, last = plain.rpartition("/")
    key, dot, extension = last.rpartition(".")
    while dot and "." in key and key.rpartition(".")[2].lower() in _ROLES:
        key, _, inner = key.rpartition(".")
        extension = f"{inner}.{extension}"
    return _Member(f"{folder}{slash}{key if dot else last}", extension.lower() if dot else "", plain)


def _labelled_key(key: str, labels: dict[str, str]) -> str:
    """Return the key under which a picture's label stands: its own, or what stands before one of its dots."""
    candidate = key
    while candidate not in labels:
        shorter = candidate.rpartition(".")[0]
        if not shorter or shorter.rpartition("/")[0] != key.rpartition("/")[0]:
            return key
        candidate = shorter
    return candidate


def _one_per_sample(
    pictures: list[tuple[_Member, int]], settings: DataSettings, report: ReadingReport, file: Path
) -> list[tuple[_Member, int]]:
    """Return one picture per key: that of `data.image_key`, or of the extension that stands for images."""
    by_key: dict[str, list[tuple[_Member, int]]] = {}
    for found in pictures:
        by_key.setdefault(found[0].key, []).append(found)
    chosen = []
    several: Counter[str] = Counter()
    for key, members in by_key.items():
        extensions = [member.extension for member, _ in members]
        image = settings.image_key if settings.image_key else _image_of(extensions, file, key)
        taken = next((found for found in members if found[0].extension == image), None)
        for found in members:
            if found is not taken:
                several[f"{image} (not {found[0].extension})"] += taken is not None
                report.leave_out("further pictures of a sample", found[0].name)
        chosen += [taken] if taken else []
    chosen.sort(key=lambda found: found[1])  # the second pass yields them so
    for what, _ in several.most_common(2):
        report.note(f"of several pictures of a sample, the image is {what}; data.image_key changes that")
    return chosen


def _image_of(extensions: list[str], file: Path, key: str) -> str:
    if len(set(extensions)) == 1:
        return extensions[0]
    plain = [extension for extension in extensions if "." not in extension]
    by_role = [e for role in _IMAGE_ROLES for e in extensions if e.split(".")[0] == role]
    by_order = [extension for extension in _IMAGE_ORDER if extension in plain]
    if len(set(plain)) == 1:
        return plain[0]
    if by_role:
        return by_role[0]
    if by_order and set(plain) <= set(_IMAGE_ORDER):
        return by_order[0]
    raise InputError(
        f"{file}: sample {shown(key)} has several pictures ({', '.join(sorted(set(extensions)))}); set "
        "data.image_key to the extension of the image"
    )


def _label(content: bytes | None, place: str) -> str:
    if content is None or len(content) > _MOST_LABEL_BYTES:
        raise InputError(
            f"{shown(place)} holds a label of more than {_MOST_LABEL_BYTES:,} bytes; a number or a name needed"
        )
    text = content.decode("utf-8", "replace").strip()
    if not text:
        raise InputError(f"{shown(place)} holds {content!r}; a number of at least 0, or a name, needed")
    return text
