"""Show how the search went: hypervolume, time line, origins of the trials, proxies, and latency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepfront.dashboards.figures import (
    hypervolume_data,
    hypervolume_figure,
    latency_data,
    latency_figure,
    origins_data,
    origins_figure,
)
from stepfront.dashboards.figures.timeline import timeline_data, timeline_figure
from stepfront.dashboards.formatting import percent
from stepfront.dashboards.html.page import embedded, paragraph
from stepfront.dashboards.score_figures.proxies import ProxyPair, proxies_data, proxy_figure
from stepfront.tables.search_tables import SearchTables


def hypervolume_section(tables: SearchTables) -> str:
    """Return the growth of the front's hypervolume."""
    if tables.progress.empty:
        return ""
    caption = "Hypervolume: the area between front and reference point. Higher is better."
    caption += " Horizontal lines are the final hypervolumes of the baselines." if len(tables.methods) else ""
    return embedded("hypervolume", hypervolume_figure(hypervolume_data(tables)), caption)


def origins_section(tables: SearchTables) -> str:
    """Return how often each origin was tried, and how often it reached the front."""
    if tables.trials.empty:
        return ""
    caption = "How often each way of proposing a plan was tried, and how many of its plans are on the front."
    return embedded("origins", origins_figure(origins_data(tables)), caption)


def timeline_section(tables: SearchTables) -> str:
    """Return when each worker evaluated which trial; "" where the times are not known."""
    data = timeline_data(tables)
    if data.trials.empty:
        return ""
    caption = "Each bar is a trial in the lane of its worker. A new process after a failure has a lane of its own."
    caption += "" if data.busy != data.busy else f" Evaluations took {percent(data.busy)} of the workers' time."
    caption += f" The last {data.left_out:,} trials are not drawn." if data.left_out else ""
    return embedded("timeline", timeline_figure(data), caption)


def proxies_section(tables: SearchTables) -> str:
    """Compare the proxies with FID."""
    pairs = proxies_data(tables)
    if not pairs:
        return ""
    note = "Each trial on a cheap and on an expensive score. Kendall's τ is 1 for equal rankings, 0 for unrelated."
    figures = [
        f"<div>{embedded(f'proxy-{pair.lower}-{pair.upper}', proxy_figure(pair), _agreement(pair))}</div>"
        for pair in sorted(pairs, key=lambda pair: pair.upper != "fid")
    ]
    return paragraph(note) + f'<div class="beside">{"".join(figures)}</div>'


def _agreement(pair: ProxyPair) -> str:
    return f"{pair.lower} and {pair.upper}: τ = {pair.tau:.2f} over {pair.count} trials"


def latency_noise(facts: Mapping[str, Any]) -> str:
    """Return how far the runs of the latencies' measurement differed, in words; empty where that is not known."""
    costs = facts.get("width_costs") or []
    known = [spread for cost in costs for spread in (cost.get("latency_spread"), *(cost.get("spreads") or {}).values())]
    spreads = [spread for spread in known if isinstance(spread, float)]
    noise = f" Half of the runs lie within {max(spreads):.0%} of a latency, at the noisiest variant." if spreads else ""
    doubt = facts.get("latency_doubt")
    return f"{noise} The latencies are in doubt, since something else ran on the machine: {doubt}." if doubt else noise


def latency_section(tables: SearchTables) -> str:
    """Compare latency with FLOPs."""
    data = latency_data(tables)
    if data.empty:
        return ""
    caption = "On the dashed line, latency falls with FLOPs. Above it, latency falls less than FLOPs do."
    caption += latency_noise(tables.facts)
    return embedded("latency", latency_figure(data), caption)
