"""Read `folder`: a folder of image files or a zip of one, with class subfolders or none."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stepfront.errors import InputError, first_line
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Splits
from stepfront.trainers.data.folder_rules.masks import IMAGE_FOLDERS, stem_of, without_masks
from stepfront.trainers.data.folder_rules.metadata_files import Labelled, is_metadata, read_labels, unread_table
from stepfront.trainers.data.formats.file_tree import (
    TAR_SUFFIXES,
    list_folder,
    list_zip,
    open_zip,
    suffix_of,
    zip_error,
)
from stepfront.trainers.data.formats.pictures import Picture, read_pictures
from stepfront.trainers.data.pixels import (
    MOST_FILE_BYTES,
    TOO_LARGE,
    BadImageError,
    looks_like_a_picture,
    picture_suffixes,
)
from stepfront.trainers.data.reading_report import ReadingReport, shown
from stepfront.trainers.data.spill_buffer import MemoryBudget
from stepfront.trainers.data.splits import (
    FEWEST_HELD_OUT,
    Folders,
    Kind,
    choose_held_out,
    kind_of,
    split_folders,
)

_HEAD = 32


def read_folder(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read a folder or zip of images.

    Classes are the subfolders in alphabetical order.  `splits.split_folders` says which of them are splits.
    """
    path = Path(str(settings.path))
    if not path.exists():
        raise InputError(f"no data at {path}")
    report = budget.report
    source = _FolderSource(path, report) if path.is_dir() else _ZipSource(path, report)
    names = without_masks(_pictures(source, report), source.head, report)
    if not names:
        raise _no_images(path, source.names, report)
    labelled = read_labels(names, source.names, source.read, settings, report, str(path))
    train, held_out, class_names = _listed(
        names if labelled is None else labelled.names, settings, report, path, labelled
    )
    if not train:
        of = ", ".join(report.splits.get("held_out", report.splits.get("unused", {})))
        raise InputError(
            f"no training images in {path}: all {len(names):,} are in {of[:100]}; set data.splits to train on them"
        )
    return read_pictures(train, held_out or None, source.contents, settings, budget, class_names)


def _no_images(path: Path, names: Sequence[str], report: ReadingReport) -> InputError:
    there = f"; it has {report.left_out_line}" if report.left_out else ""
    if any(name.lower().endswith(TAR_SUFFIXES) for name in names):
        return InputError(f"no images in {path}{there}; set data.format: webdataset to read tar files, or unpack them")
    return InputError(f"no images in {path}{there}; known suffixes: {' '.join(sorted(picture_suffixes()))}")


class _FolderSource:
    def __init__(self, path: Path, report: ReadingReport) -> None:
        self._path = path
        self.names = list_folder(path, report)

    def head(self, name: str) -> bytes:
        with open(self._path / name, "rb") as file:
            return file.read(_HEAD)

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def contents(self, pictures: Sequence[Picture]) -> Iterator[bytes | BadImageError]:
        for picture in pictures:
            try:
                file = self._path / picture.place
                yield BadImageError(TOO_LARGE) if file.stat().st_size > MOST_FILE_BYTES else file.read_bytes()
            except OSError as error:
                yield BadImageError(f"is not a readable image: {error.strerror}")


class _ZipSource:
    def __init__(self, path: Path, report: ReadingReport) -> None:
        self._path = path
        self._archive: zipfile.ZipFile | None = None  # open while many heads are read
        self._members = list_zip(path, report)
        self.names = self._members.names

    def head(self, name: str) -> bytes:
        self._archive = self._archive or open_zip(self._path)
        with self._archive.open(self._members.entries[name]) as file:
            return file.read(_HEAD)

    def read(self, name: str) -> bytes:
        try:
            with open_zip(self._path) as archive:
                return archive.read(self._members.entries[name])
        except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise InputError(f"{self._path}: {name} can't be read: {first_line(error)}") from None

    def contents(self, pictures: Sequence[Picture]) -> Iterator[bytes | BadImageError]:
        try:
            with open_zip(self._path) as archive:
                for picture in pictures:
                    entry = self._members.entries[picture.place]
                    large = entry.file_size > MOST_FILE_BYTES
                    yield BadImageError(TOO_LARGE) if large else _member(archive, entry)
        except (OSError, RuntimeError) as error:  # Runtime: encrypted, or compressed in an exotic way
            raise zip_error(self._path, error) from None


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes | BadImageError:
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        return BadImageError(f"is not a readable image: {first_line(error)}")


def _pictures(source: _FolderSource | _ZipSource, report: ReadingReport) -> list[str]:
    """Return the files that are pictures by their suffix, or by their first bytes where the suffix says nothing."""
    known, found = picture_suffixes(), []
    for name in source.names:
        suffix = suffix_of(name)
        if is_metadata(name):
            continue  # read_labels counts it
        if suffix in known:
            found.append(name)
        elif _is_picture(source.head, name):
            found.append(name)
            report.note(f"files with another suffix than a picture's ({suffix}) are read, as their content is one")
        else:
            report.leave_out(f"{suffix} files" if not suffix.startswith(".") else suffix, name)
    return found


def _is_picture(head: Callable[[str], bytes], name: str) -> bool:
    try:
        return looks_like_a_picture(head(name))
    except (OSError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile):
        return False


def _listed(
    names: Sequence[str], settings: DataSettings, report: ReadingReport, path: Path, labelled: Labelled | None = None
) -> tuple[list[Picture], list[Picture], list[str]]:
    """Return the pictures of both splits with their classes, and the names of the classes.

    Where tables have `labelled` them, folders are no classes, and the names come with the labels.
    """
    folders = [tuple(part for part in name.split("/")[:-1] if part) for name in names]
    common = 0 if settings.splits else _common(folders)
    stems = [stem_of(name).rpartition("/")[2] for name in names]
    kinds, inner, said = split_folders([path[common:] for path in folders], stems, settings, str(path))
    roles = choose_held_out(kinds, FEWEST_HELD_OUT)
    by_role: dict[str, list[tuple[str, Folders]]] = {"train": [], "held_out": []}
    for name, kind, rest, why in zip(names, kinds, inner, said, strict=True):
        if why:
            report.use(roles[kind], why)
        if roles[kind] == "unused":
            report.leave_out(_why_unused(kind), name)
        else:
            by_role[roles[kind]].append((name, rest))
    if len(set(kinds)) > 1 and settings.splits is None and not any(kind_of(why) == "train" for why in said):
        report.note(
            "folders or files called test or validation are held out and are no classes; data.splits: {} changes that"
        )
    if labelled is not None:
        parts = (by_role["train"], by_role["held_out"])
        first, second = ([Picture(name, name, labelled.labels[name]) for name, _ in part] for part in parts)
        return first, second, []
    by_role = {role: _without_image_folders(part) for role, part in by_role.items()}
    plain = _without_constant_levels(by_role["train"], by_role["held_out"])
    train, held_out = (_without_strays(part, report) for part in plain)
    classes = sorted({_class(rest, settings) for _, rest in train + held_out if rest})
    trained = {_class(rest, settings) for _, rest in train if rest}
    if len(trained) < 2 and len(classes) < 2:
        unread_table(report)
        return [Picture(name, name) for name, _ in train], [Picture(name, name) for name, _ in held_out], []
    _note_nested(classes, report)
    if settings.labels == "keep" and all(name.isdecimal() for name in classes):
        classes, numbers = [], {name: int(name[:20]) for name in classes}
    else:
        numbers = {name: number for number, name in enumerate(classes)}
        if all(name.isdecimal() for name in classes) and any(int(n[:20]) != i for n, i in numbers.items()):
            report.note(
                f"folders {', '.join(classes[:4])}, ... are classes 0 to {len(classes) - 1} in this order (data.labels)"
            )
    first, second = (
        [Picture(name, name, numbers[_class(rest, settings)] if rest else None) for name, rest in part]
        for part in (train, held_out)
    )
    return first, second, [shown(name) for name in classes]


def _why_unused(kind: Kind) -> str:
    return "in a test split beside a validation split" if kind == "test" else "in no split"


def _class(folders: Folders, settings: DataSettings) -> str:
    return "/".join(folders[: settings.class_levels])


def _common(folders: Sequence[Folders]) -> int:
    """Return how many folders stand around everything, as archives often have them: those are no classes."""
    count = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) != 1 or kind_of(level[0]):
            break
        count += 1
    return count


def _without_image_folders(part: list[tuple[str, Folders]]) -> list[tuple[str, Folders]]:
    """Remove the innermost folder where it is called images/ or the like for all pictures of a split."""
    if part and all(rest and rest[-1].lower() in IMAGE_FOLDERS for _, rest in part):
        return [(name, rest[:-1]) for name, rest in part]
    return part


def _without_constant_levels(
    train: list[tuple[str, Folders]], held_out: list[tuple[str, Folders]]
) -> tuple[list[tuple[str, Folders]], list[tuple[str, Folders]]]:
    """Remove folder levels of one name, such as images/ within each class or around the classes of a split."""
    classed = [rest for _, rest in train + held_out if rest]
    depth = {len(rest) for rest in classed}
    drop = {i for i in range(min(depth, default=0)) if len({rest[i] for rest in classed}) == 1}
    if len(depth) > 1:
        drop = {i for i in drop if all(j in drop for j in range(i))}

    def cut(part: list[tuple[str, Folders]]) -> list[tuple[str, Folders]]:
        return [(name, tuple(folder for i, folder in enumerate(rest) if i not in drop)) for name, rest in part]

    return cut(train), cut(held_out)


def _without_strays(part: list[tuple[str, Folders]], report: ReadingReport) -> list[tuple[str, Folders]]:
    """Leave out a few pictures beside class folders; where most are beside them, the folders are no classes."""
    loose = [name for name, rest in part if not rest]
    if not loose or len(loose) == len(part):
        return part
    classes = Counter(rest[0] for _, rest in part if rest)
    if len(classes) < 2 or len(loose) > len(part) / 2:
        report.note(
            f"{len(loose):,} pictures stand beside {len(classes)} folders, so the folders are not taken as classes"
        )
        return [(name, ()) for name, _ in part]
    for name in loose:
        report.leave_out("beside the class folders", name)
    return [(name, rest) for name, rest in part if rest]


def _note_nested(classes: Sequence[str], report: ReadingReport) -> None:
    nested = [name for name in classes if "/" in name]
    if nested:
        report.note(
            f"{len(nested)} of {len(classes)} classes are nested folders (first: {shown(nested[0])}); "
            "data.class_levels: 1 takes the outermost alone"
        )
