"""Images that are larger than memory: decoded splits in; arrays mapped from files out, found again by the next verb.

An entry is named after what it was decoded from: names, sizes and times of change of the source files, and the settings
that decide the pixels.  It is made in a folder beside and renamed; who comes while it is being made waits for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Labels, Pixels, Split
from stepfront.trainers.data.spill_buffer import let_go

CARD = "card.json"
_LAYOUT = 1  # to be raised whenever the same sources would be decoded to other pixels, or lie in other files
_BLOCK_BYTES = 1 << 22

Rows = NDArray[np.intp]


class AlreadyMadeError(Exception):
    """Another process has decoded the same images in the meantime."""


class PixelCache:
    """The entry of one dataset in the folder `settings.cache`.  `wanted` says which files it is decoded from."""

    def __init__(self, settings: DataSettings, wanted: Callable[[str], bool]) -> None:
        path = Path(str(settings.path))
        self._key = _key(settings, path, wanted)
        self._folder = Path(settings.cache)
        self.entry = self._folder / f"{path.name}-{self._key}"
        self._lock = FileLock(self._folder / f".{self._key}.lock")

    def find(self) -> tuple[Split, Split, str] | None:
        """Training and held-out split, mapped, and their fingerprint; None where there is no entry."""
        if not (self.entry / CARD).exists():
            return None
        fingerprint = str(read_json(self.entry / CARD, "card of decoded images")["fingerprint"])
        try:
            with np.load(self.entry / "labels.npz", allow_pickle=False) as file:
                labels: dict[str, Labels] = {name: file[name] for name in file.files}
            train, held_out = (
                (np.load(self.entry / f"{name}.npy", mmap_mode="r", allow_pickle=False), labels.get(name))
                for name in ("train", "held_out")
            )
        except (OSError, ValueError) as error:
            raise InputError(f"{self.entry} is damaged ({error}); delete it: it is made again from the data") from None
        return train, held_out, fingerprint

    def begin(self) -> Path:
        """A folder to decode into, held by this process alone.  AlreadyMadeError where the entry has come meanwhile."""
        beside = self._folder / f".{self._key}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()  # until `release`; whoever holds it is decoding these very images
            if (self.entry / CARD).exists():
                raise AlreadyMadeError
            shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
            beside.mkdir()
        except OSError as error:
            raise InputError(
                f"can't write to data.cache {self._folder}: {error.strerror}; these images need more than "
                "data.memory_mb, so give another folder or more memory"
            ) from None
        return beside

    def keep(self, beside: Path, train: tuple[Split, Rows], held_out: tuple[Split, Rows]) -> None:
        """Makes the entry of the chosen rows, in order; `beside` is the folder that `begin` gave."""
        made = beside / "made"
        made.mkdir()
        digest = hashlib.sha256()
        labels = {}
        for name, ((images, numbers), rows) in (("train", train), ("held_out", held_out)):
            _write_rows(made / f"{name}.npy", images, rows, digest.update)
            if numbers is not None:
                labels[name] = numbers[rows]
            digest.update(b"none" if numbers is None else np.ascontiguousarray(numbers[rows]).data)
        with open(made / "labels.npz", "wb") as file:
            np.savez(file, **labels)  # type: ignore[arg-type]  # numpy's stubs take the names for its own options
        write_json(made / CARD, {"fingerprint": digest.hexdigest(), "layout": _LAYOUT})
        shutil.rmtree(self.entry, ignore_errors=True)  # an entry without a card is none
        os.replace(made, self.entry)

    def release(self) -> None:
        """Let other processes decode the same images."""
        self._lock.release()


def _write_rows(path: Path, images: Pixels, rows: Rows, seen: Callable[[bytes], object]) -> None:
    """The rows as an .npy, a few megabytes at a time; `seen` is told what `fingerprint` would be."""
    shape = (len(rows), *images.shape[1:])
    seen(str(shape).encode())
    count = max(1, _BLOCK_BYTES // max(1, images[0].size))
    with open(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, len(rows), count):
            content = images[rows[first : first + count]].tobytes()
            seen(content)
            file.write(content)
            let_go(images)
        file.flush()
        os.fsync(file.fileno())


def _key(settings: DataSettings, path: Path, wanted: Callable[[str], bool]) -> str:
    deciding = settings.model_dump(mode="json", exclude={"flip", "memory_mb", "cache", "path"})
    digest = hashlib.sha256(json.dumps([_LAYOUT, str(path.resolve()), deciding], sort_keys=True).encode())
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if wanted(f.name))
    for file in files:
        facts = file.stat()
        digest.update(f"{file.relative_to(path)}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]
