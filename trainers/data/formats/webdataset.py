"""Read `webdataset`: tar files with KEY.png (jpg, jpeg, webp) and KEY.cls side by side; one file or a folder."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import ImageStack, Split, Splits
from stepfront.trainers.data.formats.archive import tar_members
from stepfront.trainers.data.formats.shards import find_shards
from stepfront.trainers.data.spill_buffer import MemoryBudget

_IMAGES = {"png", "jpg", "jpeg", "webp"}
SUFFIXES = (".tar", ".tar.gz", ".tgz")


def read_webdataset(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read samples in the order of the archives; other members of a sample (json, txt) are ignored."""
    path = Path(str(settings.path))
    train, held_out = find_shards(path, SUFFIXES)
    first = _gather(train, settings, path, budget, settings.limit)
    return first, _gather(held_out, settings, path, budget) if held_out else None


def _gather(
    files: list[Path], settings: DataSettings, path: Path, budget: MemoryBudget, limit: int | None = None
) -> Split:
    stack = ImageStack(settings, path, budget)
    sizes = [file.stat().st_size for file in files]
    for number, file in enumerate(files):
        for key, members in groupby(_members(file), key=lambda member: member[0]):
            if stack.count == limit:
                return stack.split()
            contents = {extension: content for _, extension, content in members}
            label = _label(contents.get("cls"), f"{file}: {key}.cls")
            for extension in sorted(_IMAGES & contents.keys()):
                stack.add(contents[extension], f"{file}: {key}.{extension}", label)
        estimate = round(stack.count * sum(sizes) / max(1, sum(sizes[: number + 1])))
        stack.total = estimate if limit is None else min(estimate, limit)
    return stack.split()


def _members(file: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield key, extension and bytes of each image and label, in the archive's order."""
    for name, content in tar_members(file, lambda name: _key_and_extension(name)[1] in {"cls", *_IMAGES}):
        yield *_key_and_extension(name), content


def _key_and_extension(name: str) -> tuple[str, str]:
    # The extension begins at the first dot of the last part: in a/b.c/0.seg.png the key is a/b.c/0.
    folder, _, last = name.removeprefix("./").rpartition("/")
    key, _, extension = last.partition(".")
    return f"{folder}/{key}" if folder else key, extension.lower()


def _label(content: bytes | None, place: str) -> int | None:
    if content is None:
        return None
    if not content.strip().isdigit():
        raise InputError(f"{place} holds {content[:20]!r}; a number of at least 0 needed")
    return int(content)
