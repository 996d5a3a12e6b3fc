"""Read all tables of a search directory at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stepfront.checksums import recorded_names
from stepfront.errors import InputError
from stepfront.files import read_json_list
from stepfront.tables import schema
from stepfront.tables.facts import read_facts
from stepfront.tables.parquet import read_optional_table, read_table


@dataclass(frozen=True)
class Snapshot:
    """The tables of a search at one moment, and the facts of search.json."""

    trials: pd.DataFrame
    progress: pd.DataFrame
    front: pd.DataFrame
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class FullWidth:
    """What sampling at full width costs and scores; None where it was not measured."""

    gflops: float | None
    fid: float | None
    latency_ms: float | None


@dataclass(frozen=True)
class SearchTables(Snapshot):
    """All tables of one search, its front sorted by GFLOPs.

    A table whose file is missing has no rows, and a text that is missing is "".
    """

    directory: Path
    baselines: pd.DataFrame
    methods: pd.DataFrame
    versus: pd.DataFrame
    confirm: pd.DataFrame  # only the rows that front and report use
    proxies: pd.DataFrame
    gap: pd.DataFrame
    sensitivity: pd.DataFrame
    adaptation: pd.DataFrame  # the second stage of the supernet
    settings: str  # the text of settings.yaml
    images: list[dict[str, Any]]  # images/index.json
    judges: list[dict[str, Any]]  # judges.json
    missing: tuple[str, ...] = ()  # tables that the search has had, and whose files are missing

    @property
    def name(self) -> str:
        """The name people gave the search, or else the name of its folder."""
        return str(self.facts.get("name") or self.directory.resolve().name)

    @property
    def fid_name(self) -> str:
        """FID with the features that it is computed on: FID (classifier)."""
        return fid_name([self])

    @property
    def full(self) -> FullWidth:
        """Full width by search.json."""
        stated = _mapping(self.facts.get("full"))
        return FullWidth(*(number(stated.get(key)) for key in ("gflops", "fid", "latency_ms")))

    @property
    def own_scores(self) -> list[dict[str, Any]]:
        """The user's own scores by search.json: name, function, goal (lower or higher) and use of each."""
        return [score for score in self.facts.get("scores") or [] if isinstance(score, dict) and "name" in score]

    @property
    def complete(self) -> pd.DataFrame:
        """The trials that have a score."""
        return scored(self.trials)

    @property
    def savings(self) -> dict[str, Any]:
        """What the search saves at equal quality by its confirmation; empty where there is none."""
        return _mapping(self.facts.get("savings"))

    @property
    def confirmed(self) -> pd.DataFrame:
        """The front points that were scored on held-out noise seeds."""
        return self.front[self.front.fid_confirmed.notna()]


def read_snapshot(directory: Path) -> Snapshot:
    """Return the tables of a search without which nothing can be done.

    Raises InputError when trials, progress, front or search.json are missing or damaged.
    """
    return Snapshot(
        read_table(directory / schema.TRIALS),
        read_table(directory / schema.PROGRESS),
        read_table(directory / schema.FRONT),
        read_facts(directory),
    )


def read_baselines(directory: Path) -> pd.DataFrame:
    """Return the baselines that have a score; empty where the search has none.  Raises InputError for a damaged table.

    The file also holds those whose score is not finite, so that they are scored once: they stand beside nothing.
    """
    return scored(read_optional_table(directory / schema.BASELINES))


def read_tables(directory: Path) -> SearchTables:
    """Return all tables of a search.

    Raises InputError when trials, front or search.json are missing, or any file is damaged or lacks a column.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"no search directory at {directory}; give one that `stepfront search` made")
    confirm = read_optional_table(directory / schema.CONFIRM)
    settings = directory / schema.SETTINGS_FILE
    index = directory / "images" / "index.json"
    trials = read_table(directory / schema.TRIALS)
    return SearchTables(
        trials=trials,
        progress=read_optional_table(directory / schema.PROGRESS),
        front=read_table(directory / schema.FRONT).sort_values("gflops", ignore_index=True),
        facts=read_facts(directory),
        directory=directory,
        baselines=read_baselines(directory),
        methods=read_optional_table(directory / schema.METHOD_SCORES),
        versus=read_optional_table(directory / schema.VERSUS),
        confirm=confirm[confirm["used"].astype(bool)],
        proxies=read_optional_table(directory / schema.PROXY_SCORES),
        gap=read_optional_table(directory / schema.GAP),
        sensitivity=read_optional_table(directory / schema.SENSITIVITY),
        adaptation=read_optional_table(directory / schema.ADAPTATION),
        settings=settings.read_text(encoding="utf-8", errors="replace") if settings.is_file() else "",
        images=_entries(index, "list of images"),
        judges=_entries(directory / schema.JUDGES_FILE, "list of judges"),
        missing=_missing(directory, trials),
    )


def _entries(path: Path, what: str) -> list[dict[str, Any]]:
    """Return the mappings in a JSON list; none where the file is missing."""
    return [entry for entry in read_json_list(path, what) if isinstance(entry, dict)] if path.is_file() else []


def own_score_names(facts: Mapping[str, Any]) -> list[str]:
    """Return the names of a user's own scores in search.json."""
    return [str(score["name"]) for score in facts.get("scores") or []]


def _missing(directory: Path, trials: pd.DataFrame) -> tuple[str, ...]:
    """Return the tables that a search with scores has, or the record of checksums lists, and that are not there."""
    always = {schema.PROGRESS, schema.PROXY_SCORES} if len(scored(trials)) else set()
    expected = [name for name in schema.TABLES if name in always | recorded_names(directory)]
    return tuple(name for name in expected if not (directory / name).exists())


def fid_name(searches: Sequence[SearchTables]) -> str:
    """Return FID with the features of all these searches."""
    features = dict.fromkeys(str(tables.facts["features"]) for tables in searches if tables.facts.get("features"))
    return f"FID ({', '.join(features)})" if features else "FID"


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose trial completed with finite numbers: all that can be drawn."""
    if frame.empty:
        return frame
    return frame[(frame.state == "complete") & frame.fid.notna() & frame.gflops.notna()]


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """Iterate over a table's rows, with its columns as attributes, whose types no checker can know."""
    return iter(frame.itertuples(index=False))


def number(value: Any) -> float | None:
    """Return `value` as a finite float, or None: search.json may leave out any number, or hold null."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
