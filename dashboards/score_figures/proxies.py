"""Draw how a cheap score ranks plans compared with a more expensive one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from stepfront.dashboards.figures.style import BLUE, axis, layout
from stepfront.tables.schema import PROXY_NAMES
from stepfront.tables.search_tables import SearchTables, number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_POINTS = 1500


@dataclass(frozen=True)
class ProxyPair:
    """Hold scores [trials] by a proxy and by a more expensive score, and Kendall's tau-b over `count` trials."""

    lower: str
    upper: str
    low: np.ndarray
    high: np.ndarray
    tau: float
    count: int
    fid_name: str = "FID"


def proxies_data(tables: SearchTables) -> list[ProxyPair]:
    """Return every pair of scores that two trials or more both have, with the last 1500 of these trials.

    Tau is the one in search.json; where that has none, it is computed from the trials drawn.
    """
    if tables.proxies.empty:
        return []
    scores = tables.proxies.pivot_table(index="trial", columns="proxy", values="score", aggfunc="last")
    pairs = []
    for lower, upper in combinations(_cheapest_first(scores.columns), 2):
        both = scores[[lower, upper]].dropna().tail(MOST_POINTS)
        if len(both) >= 2:
            low, high = (_without_dust(both[name].to_numpy(float)) for name in (lower, upper))
            tau, count = _stated(tables, lower, upper) or (kendall_tau(low, high), len(both))
            pairs.append(ProxyPair(lower, upper, low, high, tau, count, tables.fid_name))
    return pairs


def _without_dust(scores: np.ndarray) -> np.ndarray:
    """Return the scores with 0 for what is 0 up to rounding: full width beside itself on another engine."""
    largest = np.abs(scores).max(initial=0.0)
    return np.where(np.abs(scores) < 1e-9 * largest, 0.0, scores)


def _cheapest_first(found: Iterable[str]) -> list[str]:
    """Return the scores that a search has: our own proxies, those of its user, then FID."""
    others = sorted(set(found) - {*PROXY_NAMES, "fid"})
    return [name for name in (*PROXY_NAMES, *others, "fid") if name in set(found)]


def _stated(tables: SearchTables, lower: str, upper: str) -> tuple[float, int] | None:
    for entry in tables.facts.get("proxy_tau") or []:
        if (entry.get("lower"), entry.get("upper")) == (lower, upper) and number(entry.get("tau")) is not None:
            return float(entry["tau"]), int(entry.get("n", 0))
    return None


def kendall_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Return Kendall's tau-b of two scores; NaN when all values of one side are equal."""
    from scipy.stats import kendalltau

    return float(kendalltau(a, b).statistic)


def proxy_figure(pair: ProxyPair) -> Figure:
    """Draw one pair, with the cheaper score on the horizontal axis."""
    import plotly.graph_objects as go

    marker = {"color": BLUE, "size": 6, "opacity": 0.6}
    hover = f"{pair.lower} %{{x:.4~g}}<br>{pair.upper} %{{y:.4~g}}<extra></extra>"
    trace = go.Scatter(x=pair.low, y=pair.high, mode="markers", marker=marker, hovertemplate=hover, showlegend=False)
    figure = go.Figure(trace)
    figure.update_layout(
        layout(340, margin={"l": 60, "r": 20, "t": 10, "b": 50}),
        xaxis=axis(_title(pair.lower, pair), pair.low),
        yaxis=axis(_title(pair.upper, pair), pair.high),
    )
    return figure


def _title(proxy: str, pair: ProxyPair) -> str:
    return pair.fid_name if proxy == "fid" else f"proxy {proxy}"
