"""Note in a directory's mlflow.json what MLflow holds of a search or a training."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from stepfront.errors import InputError
from stepfront.files import read_json, write_json

NOTE_FILE = "mlflow.json"


@dataclass
class WrittenRun:
    """Hold the ids of a run in MLflow; they are empty until it is written."""

    experiment_id: str = ""
    run_id: str = ""

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Return the note in `directory`; an empty one when it is missing or damaged, since the store knows more."""
        with contextlib.suppress(InputError):
            return cls.read_strictly(directory)
        return cls()

    @classmethod
    def read_strictly(cls, directory: Path) -> Self:
        """Return the note in `directory`.  Raises InputError when it is missing or damaged."""
        path = directory / NOTE_FILE
        content = read_json(path, "MLflow note")
        checksum = content.pop("checksum", None)
        kinds = {name: type(value) for name, value in asdict(cls()).items()}
        fits = content.keys() <= kinds.keys() and all(isinstance(value, kinds[name]) for name, value in content.items())
        if not fits or (checksum is not None and checksum != _checksum(content)):
            raise InputError(f"{path} is damaged; `stepfront sync` writes it again")
        return cls(**content)

    def save(self, directory: Path) -> None:
        """Write the note; log a warning when it can't be written, because the store can replace it."""
        try:
            write_json(directory / NOTE_FILE, asdict(self) | {"checksum": _checksum(asdict(self))})
        except ValueError as error:
            logging.getLogger("stepfront").warning("the note of what MLflow holds was not saved: %s", error)

    def forget(self) -> None:
        """Forget everything that was written, because the tracking store is another one."""
        vars(self).update(vars(type(self)()))


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass
class WrittenSearch(WrittenRun):
    """Hold, per trial, its child run, rank, row of the table, label and confirmed scores; and how many evaluations.

    `own_id` is the id in MLflow of a search that was copied by hand; empty where that is the search's own.
    """

    children: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    confirmed: dict[str, dict[str, float]] = field(default_factory=dict)
    evaluations: int = 0
    own_id: str = ""

    def forget(self) -> None:
        """Forget the runs; a copy keeps its id in every store."""
        vars(self).update(vars(WrittenSearch(own_id=self.own_id)))

    def id_in_mlflow(self, search_id: str) -> str:
        """Return the id by which the search is found in MLflow."""
        return self.own_id or search_id


@dataclass
class WrittenTraining(WrittenRun):
    """Hold the training's own id, by which its run is found."""

    training_id: str = ""

    def forget(self) -> None:
        """Forget the run; the training keeps its id in every store."""
        self.experiment_id = self.run_id = ""
