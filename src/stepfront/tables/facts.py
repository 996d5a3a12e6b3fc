"""Read search.json: the facts of a search, whose shape is checked before anything relies on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from stepfront.checksums import place_of_search
from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.tables.schema import FACTS_FILE


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _FullWidth(_Shape):
    gflops: float | None = None
    fid: float | None = None
    latency_ms: float | None = None


class _Sampler(_Shape):
    plan: str
    sampler: str
    gflops: float
    latency_ms: float | None = None


class _Judge(_Shape):
    features: str
    score: float
    reference: float
    difference: float
    interval: list[float | None]


class _Disagreements(_Shape):
    judges: list[str] = []
    pairs: int = 0
    examples: list[dict[str, Any]] = []


class _Blurred(_Shape):
    passes: bool
    judges: list[_Judge]


class _Correction(_Shape):
    points: str
    tested: int
    of: int
    looks: str
    error: float


class _Claim(_Shape):
    """The claim of a confirmed search, in `savings`."""

    holds: bool
    plan: str | None
    margin: float
    judges: list[_Judge]
    flops_saved: float | None
    flops_saved_against_best_full_width: float | None
    latency_saved: float | None
    reference: _Sampler
    seeds: int
    images: int
    trial: int | None
    level: float | None = None
    looks: list[int] | None = None
    correction: _Correction | None = None
    blurred_reference: _Blurred | None = None
    lacking: str | None = None
    best_full_width: _Sampler | None = None
    disagreements: _Disagreements | None = None


class _Noise(_Shape):
    spread: float | None = None
    spread_of_difference: float | None = None
    noise_seeds: list[int] = []
    images: int | None = None
    network_gflops: float | None = None


class _Tau(_Shape):
    lower: str
    upper: str
    tau: float | None
    n: int = 0


class _Score(_Shape):
    """A score of the user's own."""

    name: str
    goal: str | None = None


class _Reconstruction(_Shape):
    """The score of an autoencoder alone."""

    fid: float
    real_fid: float
    psnr: float
    images: int


class _TriedStart(_Shape):
    """A start of learning: its distance to the teacher's images, and the least after a share of the iterations."""

    name: str
    first: float | None
    least: float | None
    earlier: bool


class _Learning(_Shape):
    """What learning a sampler gained and took."""

    plan: str
    steps: int
    digest: str
    chosen: str
    times: list[float]
    network_times: list[float]
    fid: float | None = None
    own_fid: float | None = None
    taken: str | None = None
    tried: list[_TriedStart] | None = None


class _FitRound(_Shape):
    """A pause of the search in which samplers were fitted; a study that is rebuilt takes it from here."""

    at: int
    points: list[int]
    tflops: float | None
    lost: list[int] | None = None


class _Earlier(_Shape):
    """A search that this one started from, and its weight in the model of FID after numbers of trials.

    `lacking` says why the search had no model of it, and then there are no weights.
    """

    search: str
    name: str
    trials: int
    after: list[int]
    weight: list[float]
    usable: int | None = None
    lacking: str | None = None


class _Facts(_Shape):
    search_id: str | None = None
    format: int | None = None
    name: str | None = None
    dataset: str | None = None
    fingerprint: str | None = None
    supernet_digest: str | None = None
    features: str | None = None
    features_digest: str | None = None
    images: int | None = None
    noise_seed: int | None = None
    steps: int | None = None
    solver: str | None = None
    objectives: list[str] | None = None
    widths: list[float] | None = None
    variants: list[str] | None = None
    full: _FullWidth | None = None
    reference: dict[str, float] | None = None
    reference_point: list[float] | None = None
    versions: dict[str, str] | None = None
    created: str | None = None
    finished: str | None = None
    command: str | None = None
    evaluations: int | None = None
    failed: int | None = None
    network_gflops: float | None = None
    network_gflops_saved: float | None = None
    seconds: float | None = None
    width_costs: list[dict[str, Any]] | None = None
    noise: _Noise | None = None
    savings: dict[str, Any] | None = None
    looks: list[list[int]] | None = None
    scores: list[_Score] | None = None
    recorded: list[str] | None = None
    parent_searches: list[str] | None = None
    earlier: list[_Earlier] | None = None
    proxy_tau: list[_Tau] | None = None
    gflops_decode: float | None = None
    latency_ms_decode: float | None = None
    reconstruction: _Reconstruction | None = None
    learning: list[_Learning] | None = None
    hand_grids: dict[str, dict[str, list[float]]] | None = None
    fit_rounds: list[_FitRound] | None = None


def search_id_of(facts: Mapping[str, Any]) -> str:
    """Return the id of a search.  Raises InputError where its facts lack it."""
    found = facts.get("search_id")
    if not found:
        raise InputError(f"{FACTS_FILE} has no search_id; `stepfront doctor SEARCH --repair` rebuilds it")
    return str(found)


def read_facts(directory: Path) -> dict[str, Any]:
    """Return the facts of the search in `directory`; a fact that is null is left out.

    Raises InputError when search.json is missing, differs from its checksum, is damaged, or a fact has another type
    than it should.
    """
    path = Path(directory) / FACTS_FILE
    content = read_json(path, "search")
    try:
        _Facts.model_validate(content)
        claim = content.get("savings")
        if claim and isinstance(claim.get("holds", False), bool) and "holds" in claim:
            _Claim.model_validate(claim)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path} is damaged: {key}: {first['msg'][:1].lower()}{first['msg'][1:]} (given: {first['input']!r:.60}); "
            f"`stepfront doctor {place_of_search(path)} --repair` rebuilds it"
        ) from None
    return {key: value for key, value in content.items() if value is not None}


def earlier_weights(facts: Mapping[str, Any]) -> dict[str, float]:
    """Return the latest weight of each earlier search by its name; two of one name are told apart by a number."""
    found: dict[str, float] = {}
    for one in facts.get("earlier") or []:
        if one["weight"]:
            same = sum(name.split("#")[0] == one["name"] for name in found)
            found[f"{one['name']}#{same + 1}" if same else one["name"]] = one["weight"][-1]
    return found
