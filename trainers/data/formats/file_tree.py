"""List the files of a folder or a zip, and of a folder of archives; count what is no data: hidden, links, others."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.reading_report import ReadingReport
from stepfront.trainers.data.splits import choose_held_out, split_files

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")

_SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}


def system_name(name: str) -> str | None:
    """Return the hidden or system part of a path, which is no data; None where there is none."""
    for part in name.split("/"):
        if part.startswith(".") or part.lower() in _SYSTEM:
            return part if part in (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX") else "hidden"
    return None


def suffix_of(name: str) -> str:
    """Return the last suffix of a file's name in lower case, and what to call a name without one."""
    return os.path.splitext(name.rpartition("/")[2])[1].lower() or "without a suffix"


def list_folder(folder: Path, report: ReadingReport) -> list[str]:
    """Return all visible files below a folder, sorted, with / between their parts.

    Linked folders are followed, each real folder once.  Hidden files, broken links and what is no file are counted in
    the report.
    """
    found: list[str] = []
    seen: set[str] = set()
    waiting: list[tuple[str, Path]] = [("", folder)]
    links: list[tuple[str, Path]] = []
    while waiting or links:
        prefix, place = waiting.pop() if waiting else links.pop(0)  # real folders first: a link may lead into them
        real = os.path.realpath(place)
        if real in seen:
            report.leave_out("links to folders that are read already", prefix)
            continue
        seen.add(real)
        for entry in _entries(place, prefix, report):
            name = f"{prefix}{entry.name}"
            if _is_folder(entry):
                (links if entry.is_symlink() else waiting).append((f"{name}/", Path(entry.path)))
            else:
                report.found += 1
                found += [name] if _is_data(entry, name, report) else []
    return sorted(found)


def _entries(place: Path, prefix: str, report: ReadingReport) -> list[os.DirEntry[str]]:
    if prefix and (hidden := system_name(prefix.rstrip("/"))):
        inside = sum(len(files) for _, _, files in os.walk(place))
        report.found += inside
        if inside:
            report.leave_out(hidden, prefix, inside)
        return []
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        report.leave_out("folders that can't be opened", prefix)
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_data(entry: os.DirEntry[str], name: str, report: ReadingReport) -> bool:
    if hidden := system_name(entry.name):
        report.leave_out(hidden, name)
        return False
    try:
        mode = entry.stat().st_mode
    except OSError:
        report.leave_out("broken links" if entry.is_symlink() else "unreadable", name)
        return False
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        report.leave_out("pipes, sockets and devices", name)
    return stat.S_ISREG(mode)


@dataclass(frozen=True)
class ZipMembers:
    """The files of a zip: names with / between their parts, and the entry behind each."""

    entries: dict[str, zipfile.ZipInfo]

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.entries)


def list_zip(path: Path, report: ReadingReport) -> ZipMembers:
    """Return the visible files of a zip.  Raises InputError when it is damaged."""
    entries: dict[str, zipfile.ZipInfo] = {}
    with open_zip(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.replace("\\", "/")  # some programs on Windows write it so
            if name.endswith("/"):
                continue
            report.found += 1
            if hidden := system_name(name.lstrip("/")):
                report.leave_out(hidden, name)
            elif stat.S_ISLNK(entry.external_attr >> 16):
                report.leave_out("links", name)
            elif name in entries:
                report.leave_out("of a name that occurs twice", name)
            else:
                entries[name] = entry
    return ZipMembers(entries)


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip.  Raises InputError when it is none."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise zip_error(path, error) from None


def zip_error(path: Path, error: Exception) -> InputError:
    """Return the error of a path that should be a folder or a zip."""
    if path.name.lower().endswith(TAR_SUFFIXES):
        return InputError(
            f"{path} is a tar file; set data.format: webdataset to read it, or give the folder it unpacks to"
        )
    return InputError(f"{path} is neither a folder nor a complete zip of images: {error}")


@dataclass(frozen=True)
class Shards:
    """Files that each hold a part of a dataset, in order."""

    train: list[Path]
    held_out: list[Path]


def find_shards(path: Path, suffixes: tuple[str, ...], settings: DataSettings, report: ReadingReport) -> Shards:
    """Return the training files and the held-out files at `path`, one file or a folder of them, split by their names.

    Raises InputError when there is no training file.
    """
    if not path.exists():
        raise InputError(f"no data at {path}")
    if path.is_file():
        return Shards([path], [])
    names = [name for name in list_folder(path, report) if _is_wanted(name, suffixes, report)]
    report.found -= len(names)  # the readers count what is in these
    kinds = split_files(names, settings)
    roles = choose_held_out(kinds)
    for name, kind in zip(names, kinds, strict=True):
        if len(set(kinds)) > 1:
            report.use(roles[kind], name)
    by_role: dict[str, list[Path]] = {"train": [], "held_out": [], "unused": []}
    for name, kind in zip(names, kinds, strict=True):
        by_role[roles[kind]].append(path / name)
    train, held_out = by_role["train"], by_role["held_out"]
    if not train:
        found = f" among {len(names)} files" if names else ""
        hint = "; data.splits says which files train" if names else ""
        raise InputError(f"no training files in {path}{found}; expected {' or '.join(suffixes)} files{hint}")
    return Shards(train, held_out)


def _is_wanted(name: str, suffixes: Sequence[str], report: ReadingReport) -> bool:
    wanted = name.lower().endswith(tuple(suffixes))
    if not wanted:
        report.leave_out(f"{suffix_of(name)} files", name)
    return wanted
