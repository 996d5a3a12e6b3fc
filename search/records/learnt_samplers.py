"""Keep what a search has learnt: samplers, one JSON file each and by number of steps, and weights fitted to plans."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.torch import save_file

from stepfront.errors import InputError
from stepfront.files import read_json, write_atomically, write_json
from stepfront.search.records.plan_rows import WEIGHTS
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.networks.weights import read_weights, weights_digest
from stepfront.trainers.variant import runs_text

if TYPE_CHECKING:
    from torch import Tensor

FOLDER, WEIGHTS_FOLDER = "samplers", "weights"
SCORED = "scored"
"""The key of the row of a full-width sampler in the record of the weights that were fitted to it.

Its FID is None where it is not finite, and `error` says why.
"""
_INDEX = "index.json"


@dataclass(frozen=True)
class SamplerRecord:
    """A sampler that plans of a search run on, and what choosing it took.

    `chosen` is learnt, or closed form where learning did not help.  Distances are to the teacher's images, of held-out
    pairs; `fid` and `start_fid` are on noise that neither learning nor search uses.  `start` is the best closed form.
    Where nothing was to be learnt, `learnt` is closed_form, and what only learning has is None.
    `own_fid` is the FID of the sampler that a fitted plan ran on before, on the same noise; None where there was none.
    `tried` are the starts of learning as JSON values (`TriedStart`), and `taken` is the one that was learnt from.
    """

    sampler: LearntSampler
    widths: tuple[float, ...]
    chosen: str
    learnt: str
    start: str
    start_times: tuple[float, ...]
    start_fid: float
    calls: int
    tflops: float
    seconds: float
    distance: str | None = None
    train: float | None = None
    held_out: float | None = None
    start_held_out: float | None = None
    fid: float | None = None
    own_fid: float | None = None
    taken: str | None = None
    tried: tuple[Mapping[str, Any], ...] = ()

    @property
    def chosen_fid(self) -> float:
        """Return the FID of the sampler that was chosen."""
        return self.fid if self.chosen == "learnt" and self.fid is not None else self.start_fid

    @property
    def improves(self) -> bool:
        """Return whether the chosen sampler has a smaller FID than the one that the plan ran on before."""
        return self.own_fid is None or self.chosen_fid < self.own_fid

    @property
    def refusal(self) -> str:
        """Return why the learnt sampler is not used, in one line with its figures; empty where it is, or none was."""
        if self.chosen == "learnt" or self.fid is None or self.held_out is None or self.start_held_out is None:
            return ""
        pairs = (("held-out distance", self.held_out, self.start_held_out), ("FID", self.fid, self.start_fid))
        reasons = [f"{what} {own:.4g} is not below {best:.4g}" for what, own, best in pairs if not own < best]
        return f"{runs_text(self.widths)} keeps {self.start}: the learnt sampler's {' and its '.join(reasons)}"

    @property
    def carried(self) -> str:
        """Return how a sampler of an earlier search compared as a start, in one line; empty where none was tried."""
        earlier = [one for one in self.tried if one["earlier"]]
        by_hand = [one["first"] for one in self.tried if not one["earlier"] and one["first"] is not None]
        if not earlier or not by_hand:
            return ""
        firsts = ", ".join(f"{one['name']} {_known(one['first'])}" for one in earlier)
        return (
            f"{runs_text(self.widths)} is learnt from {self.taken}; distance before learning: {firsts}, "
            f"best by hand {min(by_hand):.4g}"
        )

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return len(self.widths)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"sampler": self.sampler.to_json()}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> SamplerRecord:
        """Return the record of `to_json`.  Raises InputError when it is damaged."""
        try:
            tuples: dict[str, Any] = {name: tuple(map(float, content[name])) for name in ("widths", "start_times")}
            tuples["tried"] = tuple(map(dict, content.get("tried", ())))
            return SamplerRecord(**{**content, **tuples, "sampler": LearntSampler.from_json(content["sampler"])})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a record of a learnt sampler ({error}); learn it again") from error


def _known(distance: float | None) -> str:
    return "not finite" if distance is None else f"{distance:.4g}"


def learning_facts(record: SamplerRecord) -> dict[str, Any]:
    """Return what search.json says of a sampler: what learning gained and cost, and its times.

    A record with `own_fid` is that of a fit; `improves` says whether it became a trial.
    """
    content = {name: value for name, value in record.to_json().items() if name != "sampler"}
    return content | {
        "digest": record.sampler.digest,
        "plan": runs_text(record.widths),
        "steps": record.steps,
        "improves": record.improves,
        "solver": record.sampler.solver,
        "times": list(record.sampler.times),
        "network_times": list(record.sampler.network_times),
    }


def write_sampler(directory: Path, record: SamplerRecord) -> str:
    """Write a record into a search directory and return its name: plans of other widths may run on the same sampler."""
    widths = hashlib.sha256(runs_text(record.widths).encode()).hexdigest()[:8]
    name = f"{record.sampler.digest}-{widths}"
    write_json(directory / FOLDER / f"{name}.json", record.to_json())
    return name


def read_records(directory: Path) -> dict[str, SamplerRecord]:
    """Return the records of a search directory by their names; none where there is no folder.

    Raises InputError for a file that is damaged or holds another sampler than its name says.
    """
    files = sorted((directory / FOLDER).glob("*.json"))
    return {file.stem: _read_record(file) for file in files if file.name != _INDEX}


def _read_record(file: Path) -> SamplerRecord:
    content = read_json(file, "learnt sampler")
    try:
        record = SamplerRecord.from_json(content)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if not file.stem.startswith(record.sampler.digest):
        raise InputError(f"{file} holds another sampler than its name says; restore it, or start over with --fresh")
    return record


def read_samplers(directory: Path) -> dict[str, LearntSampler]:
    """Return the learnt samplers of a search directory by their digests."""
    return {record.sampler.digest: record.sampler for record in read_records(directory).values()}


def write_search_samplers(directory: Path, records: Mapping[int, SamplerRecord]) -> None:
    """Write the samplers that plans of each number of steps run on; nothing where there are none."""
    if not records:
        return
    index = {str(steps): write_sampler(directory, record) for steps, record in records.items()}
    write_json(directory / FOLDER / _INDEX, {"by_steps": index})


def read_search_samplers(directory: Path) -> dict[int, SamplerRecord]:
    """Return the samplers of a search by number of steps; none where it learnt none.

    Raises InputError when one of them is missing or has another number of steps.
    """
    path = directory / FOLDER / _INDEX
    if not path.exists():
        return {}
    index, records = read_json(path, "list of learnt samplers")["by_steps"], read_records(directory)
    try:
        found = {int(steps): records[name] for steps, name in index.items()}
    except KeyError as error:
        raise InputError(f"the learnt sampler {error} of {directory} is missing; start over with --fresh") from None
    for steps, record in found.items():
        if record.steps != steps or len(record.sampler.times) != steps:
            raise InputError(
                f"the learnt sampler {index[str(steps)]} of {directory} has {len(record.sampler.times)} steps, not "
                f"{steps}; restore it, or start over with --fresh"
            )
    return found


def write_weights(directory: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Write weights that were fitted to a plan, and what fitting took, into a search directory; return their digest."""
    name = f"{WEIGHTS}{weights_digest(weights)[:16]}"
    file = directory / WEIGHTS_FOLDER / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda path: save_file(dict(weights), path))
    write_json(file.with_suffix(".json"), dict(facts))
    return name


def find_weights(directory: Path, wanted: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the digest of fitted weights with these facts, and all their facts; None where there are none."""
    for digest, facts in _records_of_weights(directory).items():
        exist = (directory / WEIGHTS_FOLDER / f"{digest}.safetensors").exists()
        if exist and all(facts.get(key) == wanted[key] for key in wanted):
            return digest, facts
    return None


def fitted_samplers(directory: Path) -> list[dict[str, Any]]:
    """Return the full-width samplers whose weights were fitted: a row each, with plan, sampler, cost and FID."""
    rows = [facts.get(SCORED) for facts in _records_of_weights(directory).values()]
    return [row for row in rows if row and row["fid"] is not None]


def unscored_samplers(directory: Path) -> dict[tuple[str, str], str]:
    """Return the full-width samplers whose weights were fitted and never scored, with what to do about each.

    They are named by plan and sampler.
    """
    return {
        (str(facts["plan"]), fit_name(str(facts["sampler"]), digest)): (
            f"its weights were fitted and have no score; repeat stepfront fit --baseline, or delete "
            f"{WEIGHTS_FOLDER}/{digest}.*"
        )
        for digest, facts in _records_of_weights(directory).items()
        if "sampler" in facts and SCORED not in facts
    }


def fit_name(sampler: str, digest: str) -> str:
    """Return the name of a full-width sampler on weights that were fitted to it."""
    return ", ".join(filter(None, (sampler, f"fit {digest}")))


def _records_of_weights(directory: Path) -> dict[str, dict[str, Any]]:
    """Return what decided and what took the fitting of weights, by their digests."""
    files = sorted((directory / WEIGHTS_FOLDER).glob(f"{WEIGHTS}*.json"))
    return {file.stem: read_json(file, "record of fitted weights") for file in files}


def fitted_weights(directory: Path, digest: str) -> dict[str, np.ndarray]:
    """Return the fitted weights of a digest.  Raises InputError when they are missing, or as `read_fitted_weights`."""
    found = read_fitted_weights(directory)
    if digest not in found:
        raise InputError(
            f"the fitted weights {digest} are missing from {directory / WEIGHTS_FOLDER}; restore their file, or repeat "
            "the stepfront fit that made them"
        )
    return found[digest]


def read_fitted_weights(directory: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return the fitted weights of a search directory by their digests.

    Raises InputError for a file that is damaged or holds other weights than its name says.
    """
    found = {}
    for file in sorted((directory / WEIGHTS_FOLDER).glob(f"{WEIGHTS}*.safetensors")):
        weights = read_weights(file)
        if file.stem != f"{WEIGHTS}{weights_digest(weights)[:16]}":
            raise InputError(f"{file} holds other weights than its name says; restore it, or fit them again")
        found[file.stem] = {name: value.numpy() for name, value in weights.items()}
    return found
