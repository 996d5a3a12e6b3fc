"""Draw a time line of the trials by worker: when each began, how long it took, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stepfront.dashboards.figures.style import FRONT, ORANGE, SKY, axis, layout
from stepfront.tables.search_tables import SearchTables

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_TRIALS = 3000
NO_WORKER = "unknown"
LATER = ("elapsed", "seconds", "worker")
"""Columns that tables of older searches may lack."""

UNITS = ((7200.0, 3600.0, "hours"), (300.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


@dataclass(frozen=True)
class TimelineData:
    """Hold the trials with `start` and `seconds` in a `unit`, `lane` (its worker's number) and `kind`.

    Kinds are front, other and failed.  A failed trial has the time at which it was given up, and no duration.
    """

    trials: pd.DataFrame
    workers: list[str]
    unit: str
    busy: float
    """Share of the workers' time, from their first trial to their last result, that evaluations took."""
    left_out: int


def timeline_data(tables: SearchTables) -> TimelineData:
    """Return the first 3,000 trials with a known end, by worker in the order of their first result."""
    known = tables.trials.reindex(columns=list(dict.fromkeys([*tables.trials, *LATER])))
    known = known[known["elapsed"].notna()].sort_values("elapsed")
    seconds = known["seconds"].fillna(0.0).clip(lower=0.0)
    complete = known["state"] == "complete"
    trials = known[["trial"]].assign(
        worker=known["worker"].where(known["worker"].astype(str) != "", NO_WORKER).fillna(NO_WORKER).astype(str),
        seconds=seconds.where(complete, 0.0),
        start=(known["elapsed"] - seconds.where(complete, 0.0)).clip(lower=0.0),
        kind=np.where(~complete, "failed", np.where(known["trial"].isin(tables.front["trial"]), "front", "other")),
    )
    workers = list(dict.fromkeys(trials["worker"]))
    trials = trials.assign(lane=trials["worker"].map({name: lane for lane, name in enumerate(workers)}))
    busy = _busy(trials)
    longest = float((trials["start"] + trials["seconds"]).max()) if len(trials) else 0.0
    _, size, unit = next(entry for entry in UNITS if longest >= entry[0])
    kept = trials.head(MOST_TRIALS)
    kept = kept.assign(start=kept["start"] / size, length=kept["seconds"] / size)
    return TimelineData(kept, workers, unit, busy, len(trials) - len(kept))


def _busy(trials: pd.DataFrame) -> float:
    """Return the share of time that evaluations took; NaN where nothing took any."""
    ran = trials[trials["seconds"] > 0]
    spans = [float((part["start"] + part["seconds"]).max() - part["start"].min()) for _, part in ran.groupby("worker")]
    return min(1.0, float(ran["seconds"].sum()) / sum(spans)) if sum(spans) else float("nan")


def timeline_figure(data: TimelineData) -> Figure:
    """Draw a bar per trial in its worker's lane, and a cross per failure."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for kind, name, colour in (("other", "complete", SKY), ("front", "complete, on the front", FRONT)):
        part = data.trials[data.trials["kind"] == kind]
        if len(part):
            figure.add_trace(
                go.Bar(
                    base=part["start"].to_numpy(np.float32),
                    x=part["length"].to_numpy(np.float32),
                    y=part["lane"].to_numpy(np.int16),
                    marker={"color": colour, "line": {"width": 0}},
                    orientation="h",
                    width=0.8,
                    name=name,
                    **_shown(part, ""),
                )
            )
    failed = data.trials[data.trials["kind"] == "failed"]
    if len(failed):
        place = {"x": failed["start"].to_numpy(np.float32), "y": failed["lane"].to_numpy(np.int16)}
        marker = {"symbol": "x", "size": 9, "color": ORANGE}
        figure.add_trace(
            go.Scatter(
                **place,
                mode="markers",
                marker=marker,
                name="failed",
                **_shown(failed, ", failed"),
            )
        )
    lanes = len(data.workers)
    labels = {"tickvals": list(range(lanes)), "ticktext": data.workers, "range": [lanes - 0.4, -0.6]}
    figure.update_layout(
        layout(120 + min(max(34 * lanes, 60), 900), barmode="overlay", hovermode="closest"),
        xaxis=axis(f"{data.unit} since the start") | {"range": _span(data.trials)},
        yaxis=axis("") | labels | {"showgrid": False},
    )
    return figure


def _span(trials: pd.DataFrame) -> list[float]:
    """Return the range of times; bars would begin at zero, which a search spends on its preparation."""
    first, last = float(trials["start"].min()), float((trials["start"] + trials["length"]).max())
    margin = 0.01 * (last - first) or 1.0
    return [max(0.0, first - margin), last + margin]


def _shown(part: pd.DataFrame, hover: str) -> dict[str, Any]:
    # No text of each trial: thousands of them would fill the page.
    return {"hovertemplate": f"trial %{{customdata}}{hover}<extra></extra>", "customdata": part["trial"].tolist()}
