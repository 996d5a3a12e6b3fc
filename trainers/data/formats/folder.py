"""Read `folder`: a folder of image files or a zip of one, with class subfolders or none."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import SPLITS, ImageStack, Split, Splits
from stepfront.trainers.data.spill_buffer import MemoryBudget

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


def is_image_name(name: str) -> bool:
    """Return whether a file of this name is read."""
    return PurePath(name).suffix.lower() in _SUFFIXES


def read_folder(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read a folder or zip of images.

    Classes are the subfolders in alphabetical order; train/ and val/ or test/ are the split where they exist.
    """
    path = Path(str(settings.path))
    if not path.exists():
        raise InputError(f"no data at {path}")
    names = _image_names(path)
    if not names:
        raise InputError(f"no images in {path}; known suffixes: {' '.join(sorted(_SUFFIXES))}")
    parts = [PurePosixPath(name).parts for name in names]
    strip = len(_common_folders(parts))
    has_splits = all(len(p) > strip + 1 and p[strip] in SPLITS for p in parts)
    classes = ["/".join(p[strip + has_splits : -1]) for p in parts]
    numbers = {name: number for number, name in enumerate(sorted(set(classes)))}
    members: dict[str, list[tuple[str, int | None]]] = {"train": [], "held_out": []}
    for name, p, class_name in zip(names, parts, classes, strict=True):
        label = numbers[class_name] if len(numbers) > 1 else None
        members[SPLITS[p[strip]] if has_splits else "train"].append((name, label))
    train = _gather(members["train"][: settings.limit], settings, path, budget)
    return train, _gather(members["held_out"], settings, path, budget) if members["held_out"] else None


def _gather(members: list[tuple[str, int | None]], settings: DataSettings, path: Path, budget: MemoryBudget) -> Split:
    stack = ImageStack(settings, path, budget, len(members))
    contents = _contents(path, [name for name, _ in members])
    for (name, label), content in zip(members, contents, strict=True):
        stack.add(content, f"{path}: {name}", label)
    return stack.split()


def _image_names(path: Path) -> list[str]:
    """Return the image files in a folder or zip, sorted, with / between their parts."""
    if path.is_dir():
        found = (file for file in path.rglob("*") if _is_image(file.relative_to(path)) and file.is_file())
        return sorted(file.relative_to(path).as_posix() for file in found)
    try:
        with zipfile.ZipFile(path) as archive:
            return sorted(name for name in archive.namelist() if _is_image(PurePosixPath(name)))
    except (zipfile.BadZipFile, OSError) as error:
        raise _zip_error(path, error) from None


def _contents(path: Path, names: list[str]) -> Iterator[bytes]:
    """Yield the bytes of the named files, one at a time."""
    if path.is_dir():
        for name in names:
            yield (path / name).read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                yield archive.read(name)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:  # Runtime: encrypted or exotic
        raise _zip_error(path, error) from None


def _zip_error(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is neither a folder nor a complete zip of images: {error}")


def _is_image(name: PurePath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return is_image_name(name.name) and not hidden


def _common_folders(parts: list[tuple[str, ...]]) -> tuple[str, ...]:
    # One folder around everything, as archives often have it, is not a class, and neither is a single split folder.
    common: list[str] = []
    for level in zip(*(p[:-1] for p in parts), strict=False):
        if len(set(level)) != 1 or level[0] in SPLITS:
            break
        common.append(level[0])
    return tuple(common)
