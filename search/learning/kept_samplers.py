"""Keep learnt samplers beside the supernet, under a digest of all that they depend on, for every later search."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepfront.errors import InputError
from stepfront.file_store import FileStore
from stepfront.files import read_json, write_json
from stepfront.search.learning.chosen import SamplerToLearn
from stepfront.search.learning.unfinished import Unfinished, own_folder, remove_left
from stepfront.search.records.learnt_samplers import FOLDER, SamplerRecord

MADE_FOR = "made_for"
"""Key of a kept file that names what its sampler was learnt for."""

_log = logging.getLogger("stepfront")


@dataclass(frozen=True)
class KeptSamplers:
    """The samplers beside a supernet: in its local folder and, for one at a URI, there too, for other machines."""

    local: Path
    uri: str | None = None

    def find(self, task: SamplerToLearn) -> SamplerRecord | None:
        """Return the record of a task; None where its sampler was not learnt yet.

        Raises InputError when the file is damaged or holds the sampler of another task.
        """
        path = self._path(task)
        if not path.exists() and self.uri is not None:
            found = FileStore(self.uri).read_json(f"{FOLDER}/{path.name}")
            if found is not None:
                write_json(path, found)
        if not path.exists():
            return None
        content = read_json(path, "learnt sampler")
        made_for = content.pop(MADE_FOR, None)  # files of earlier versions lack it
        record = SamplerRecord.from_json(content)
        _check_made_for(path, made_for or {"plan": list(record.widths)}, _made_for(task))
        return record

    def keep(self, task: SamplerToLearn, record: SamplerRecord) -> None:
        """Write the record of a task.  A store that can't be reached costs a warning, since the local file remains."""
        path, content = self._path(task), record.to_json() | {MADE_FOR: _made_for(task)}
        write_json(path, content)
        if self.uri is None:
            return
        try:
            FileStore(self.uri).write_json(f"{FOLDER}/{path.name}", json.loads(json.dumps(content)))
        except InputError as error:
            _log.warning("%s; other machines learn this sampler again, here it is in %s", error, path)

    @contextlib.contextmanager
    def unfinished(self, task: SamplerToLearn) -> Iterator[Unfinished]:
        """Provide where an interrupted learning of a task is kept: nowhere for a supernet at a URI."""
        if self.uri is not None:
            yield Unfinished()
            return
        with own_folder(self._unfinished(task)) as own:
            yield own

    def remove_unfinished(self, task: SamplerToLearn) -> None:
        """Delete what interrupted learnings of a task have left, and not what another process is at work on."""
        task.unfinished.remove()
        remove_left(self._unfinished(task))

    def _unfinished(self, task: SamplerToLearn) -> Path:
        return self._path(task).with_suffix(".unfinished").absolute()  # a worker has another working directory

    def _path(self, task: SamplerToLearn) -> Path:
        return self.local / FOLDER / f"{task.key}.json"


def _made_for(task: SamplerToLearn) -> dict[str, Any]:
    """Return what a sampler is learnt for, as people name it; the key of the task covers more."""
    parts = task.parts
    return {
        "supernet": parts.card.digest[:16],
        "plan": list(task.widths),
        "part of the sampler": task.learnt,
        "set of solvers": sorted({solver for solver, _ in task.hand}),
        "guidance": parts.sampler.guidance,
        "data set": parts.reference.images[:16],
    }


def _check_made_for(path: Path, given: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in given.items():
        if value != wanted.get(name):
            raise InputError(
                f"{path} holds a sampler that was learnt for another {name} ({value}, not {wanted.get(name)}); delete "
                "the file, and the sampler is learnt again"
            )
