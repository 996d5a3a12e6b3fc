"""Keep decoded images that are larger than memory in files that every later verb maps.

An entry is named after what it was decoded from: names, sizes and modification times of the source files, and the
settings that decide the pixels.  It is made in a temporary folder and renamed.  Other processes wait meanwhile.
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

from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Split
from stepfront.trainers.data.formats.file_tree import list_folder
from stepfront.trainers.data.reading_report import ReadingReport
from stepfront.trainers.data.rows import Rows
from stepfront.trainers.data.spill_buffer import Labels, Pixels, release_pages

CARD = "card.json"
_LAYOUT = 2  # raise it whenever the same sources are decoded to other pixels, or stored in other files
_BLOCK_BYTES = 1 << 22
_NOT_OF_PIXELS = {"flip", "memory_mb", "cache", "path", "autoencoder", "latent_type"}
"""Settings that do not decide which pixels are read."""


class AlreadyMadeError(Exception):
    """Another process has decoded the same images in the meantime."""


class PixelCache:
    """The entry of one dataset in the folder `settings.cache`.

    `is_source` tells by name which files of `settings.path` the images are decoded from.
    """

    def __init__(self, settings: DataSettings, is_source: Callable[[str], bool]) -> None:
        path = None if settings.path is None else Path(settings.path)
        key = _key(settings, path, is_source)
        self._folder = Path(settings.cache)
        self.entry = self._folder / f"{path.name if path else 'data'}-{key}"
        self._part = self._folder / f".{key}.part"
        self._lock = FileLock(self._folder / f".{key}.lock")

    def find(self) -> tuple[Split, Split, str, ReadingReport] | None:
        """Return training and held-out split, mapped, fingerprint and report; None where there is no entry."""
        if not (self.entry / CARD).exists():
            return None
        card = read_json(self.entry / CARD, "card of decoded images")
        try:
            fingerprint, report = str(card["fingerprint"]), ReadingReport.from_json(card["report"])
            with np.load(self.entry / "labels.npz", allow_pickle=False) as file:
                labels: dict[str, Labels] = {name: file[name] for name in file.files}
            train, held_out = (
                (np.load(self.entry / f"{name}.npy", mmap_mode="r", allow_pickle=False), labels.get(name))
                for name in ("train", "held_out")
            )
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self.entry} is damaged ({error}); delete it: it is made again from the data") from None
        return train, held_out, fingerprint, report

    def begin(self) -> Path:
        """Return a temporary folder to decode into, locked for this process until `release`.

        Raises AlreadyMadeError when another process has made the entry meanwhile, and InputError when `data.cache`
        can't be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()  # its holder decodes the same images
            if (self.entry / CARD).exists():
                raise AlreadyMadeError
            shutil.rmtree(self._part, ignore_errors=True)  # left by a process that was killed
            self._part.mkdir()
        except OSError as error:
            raise InputError(
                f"can't write to data.cache {self._folder}: {error.strerror}; these images need more than "
                "data.memory_mb, so give another folder or more memory"
            ) from None
        return self._part

    def store(self, part: Path, train: tuple[Split, Rows], held_out: tuple[Split, Rows], report: ReadingReport) -> None:
        """Make the entry of the chosen rows, in order; `part` is the folder that `begin` returned."""
        made = part / "made"
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
        write_json(made / CARD, {"fingerprint": digest.hexdigest(), "layout": _LAYOUT, "report": report.to_json()})
        shutil.rmtree(self.entry, ignore_errors=True)  # an entry without a card is incomplete
        os.replace(made, self.entry)

    def release(self) -> None:
        """Let other processes continue."""
        self._lock.release()


def _write_rows(path: Path, images: Pixels, rows: Rows, update: Callable[[bytes], object]) -> None:
    """Write the rows as .npy, a few megabytes at a time; `update` gets the bytes that `fingerprint` hashes."""
    shape = (len(rows), *images.shape[1:])
    update(str(shape).encode())
    count = max(1, _BLOCK_BYTES // max(1, images[0].size))
    with open(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, len(rows), count):
            content = images[rows[first : first + count]].tobytes()
            update(content)
            file.write(content)
            release_pages(images)
        file.flush()
        os.fsync(file.fileno())


def _key(settings: DataSettings, path: Path | None, is_source: Callable[[str], bool]) -> str:
    deciding = settings.model_dump(mode="json", exclude=_NOT_OF_PIXELS)
    place = None if path is None else os.fsencode(path.resolve()).hex()
    digest = hashlib.sha256(json.dumps([_LAYOUT, place, deciding], sort_keys=True).encode())
    if path is not None:
        names = [""] if path.is_file() else filter(is_source, list_folder(path, ReadingReport()))
        for name in names:
            facts = (path / name).stat()
            digest.update(os.fsencode(name) + f"\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]
