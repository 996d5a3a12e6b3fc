"""A search directory in, its tables out: everything that the figures and the report read, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

TRIAL_COLUMNS = ("trial", "generation", "origin", "plan", "widths", "fid", "gflops", "latency_ms", "state")
COLUMNS = {
    "trials": TRIAL_COLUMNS,
    "front": (*TRIAL_COLUMNS, "fid_confirmed", "fid_low", "fid_high", "belongs", "label"),
    "baselines": ("method", "plan", "fid", "gflops", "latency_ms", "state"),
    "methods": ("method", "evaluations", "hypervolume", "share", "network_gflops"),
    "versus": ("trial", "gflops", "fid", "baseline_method", "baseline_plan", "baseline_gflops", "baseline_fid"),
    "confirm": ("kind", "plan", "fid_search", "fid"),
    "progress": ("evaluation", "hypervolume", "network_gflops"),
    "proxies": ("trial", "proxy", "score"),
}
OPTIONAL = {"front": ("kid", "kid_low", "kid_high", "precision", "recall")}
"""Columns that searches have not always had; NaN where they are absent."""
REQUIRED = ("trials", "front")
TEXTS = {"origin", "plan", "state", "error", "label", "method", "baseline_method", "baseline_plan", "kind", "proxy"}


class TableError(ValueError):
    """A search directory can't be read.  Its text is one line that says what is missing and where."""


@dataclass(frozen=True)
class FullWidth:
    """What sampling at full width costs and scores; None where it was not measured."""

    gflops: float | None
    fid: float | None
    latency_ms: float | None


@dataclass(frozen=True)
class SearchTables:
    """The tables of one search.  A table whose file is absent is an empty frame, a text that is absent is ""."""

    directory: Path
    facts: dict[str, Any]  # search.json
    trials: pd.DataFrame
    front: pd.DataFrame  # sorted by gflops
    baselines: pd.DataFrame
    methods: pd.DataFrame
    versus: pd.DataFrame
    confirm: pd.DataFrame
    progress: pd.DataFrame
    proxies: pd.DataFrame
    settings: str  # settings.yaml as it stands
    images: list[dict[str, Any]]  # images/index.json

    @property
    def name(self) -> str:
        """The name people gave the search, or else the name of its folder."""
        return str(self.facts.get("name") or self.directory.resolve().name)

    @property
    def fid_name(self) -> str:
        """FID with the features that it is computed on, without which it says nothing: FID (classifier)."""
        return fid_name([self])

    @property
    def full(self) -> FullWidth:
        """Full width as search.json states it."""
        stated = _mapping(self.facts.get("full"))
        return FullWidth(*(number(stated.get(key)) for key in ("gflops", "fid", "latency_ms")))

    @property
    def complete(self) -> pd.DataFrame:
        """The trials that have a score."""
        return scored(self.trials)

    @property
    def savings(self) -> dict[str, Any]:
        """What the search says it saves at equal quality; empty when it says nothing."""
        return _mapping(self.facts.get("savings"))

    @property
    def confirmed(self) -> pd.DataFrame:
        """The front points that were scored again on fresh noise."""
        return self.front[self.front.fid_confirmed.notna()]


def read_tables(directory: Path) -> SearchTables:
    """Reads a search directory.  Raises TableError when trials, front or search.json are missing, or any of the
    files present is damaged or lacks a column."""
    directory = Path(directory)
    if not directory.is_dir():
        raise TableError(f"no search directory at {directory}")
    facts = _read_json(directory / "search.json", dict)
    frames = {name: _read_frame(directory / f"{name}.parquet") for name in COLUMNS}
    frames["front"] = frames["front"].sort_values("gflops", ignore_index=True)
    if "used" in frames["confirm"]:  # the rows whose number of images all points share
        frames["confirm"] = frames["confirm"][frames["confirm"]["used"].astype(bool)]
    settings = directory / "settings.yaml"
    index = directory / "images" / "index.json"
    return SearchTables(
        directory=directory,
        facts=facts,
        **frames,
        settings=settings.read_text(encoding="utf-8", errors="replace") if settings.is_file() else "",
        images=[entry for entry in _read_json(index, list) if isinstance(entry, dict)] if index.is_file() else [],
    )


def fid_name(searches: Sequence[SearchTables]) -> str:
    """FID with the features of all these searches."""
    features = dict.fromkeys(str(tables.facts["features"]) for tables in searches if tables.facts.get("features"))
    return f"FID ({', '.join(features)})" if features else "FID"


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose trial completed with finite numbers: all that can be drawn."""
    if frame.empty:
        return frame
    return frame[(frame.state == "complete") & frame.fid.notna() & frame.gflops.notna()]


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """A table's rows, with its columns as attributes.  Their types are the tables', which no checker can know."""
    return iter(frame.itertuples(index=False))


def number(value: Any) -> float | None:
    """`value` as a finite float, or None: search.json may leave out any number, or hold null."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_frame(path: Path) -> pd.DataFrame:
    columns = COLUMNS[path.stem]
    if not path.is_file():
        if path.stem in REQUIRED:
            raise TableError(f"{path.name} is missing in {path.parent}: is it a search directory?")
        return pd.DataFrame(columns=list(columns))
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise TableError(f"{path} is not a readable table: {' '.join(str(error).split())}") from error
    if missing := [column for column in columns if column not in frame]:
        raise TableError(f"{path} lacks {', '.join(missing)}; it has {', '.join(frame.columns)}")
    frame = frame.assign(**{column: math.nan for column in OPTIONAL.get(path.stem, ()) if column not in frame})
    # Parquet's null reads as NaN, which is no text.
    return frame.fillna(dict.fromkeys(TEXTS & set(frame.columns), ""))


def _read_json(path: Path, kind: type) -> Any:
    if not path.is_file():
        raise TableError(f"{path.name} is missing in {path.parent}: is it a search directory?")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, kind):
        raise TableError(f"{path} should hold a {kind.__name__}, not a {type(content).__name__}")
    return content
