"""Begin the report: title, summary, and key figures in large type."""

from __future__ import annotations

from html import escape

from stepfront.dashboards.claim import claim_tile, has_claim
from stepfront.dashboards.formatting import decimal, duration, flops, significant
from stepfront.dashboards.summary import summary_sentences
from stepfront.tables.search_tables import SearchTables, number


def head(tables: SearchTables) -> str:
    """Return the title, what was searched, and the summary."""
    facts = tables.facts
    steps = "up to {} steps" if facts.get("skip") else "{} steps"
    asked = {"dataset": "on {}", "steps": steps, "solver": "{}", "guidance": "guidance {}"}
    asked |= {"encoding": "encoding {}", "device": "{}"}
    about = ", ".join(text.format(facts[key]) for key, text in asked.items() if facts.get(key) not in (None, ""))
    points = "".join(f"<li>{escape(sentence)}</li>" for sentence in summary_sentences(tables))
    return f'<h1>{escape(tables.name)}</h1><p class="quiet">{escape(about)}</p><ul class="summary">{points}</ul>'


def key_figures(tables: SearchTables) -> str:
    """Return a few key numbers in large type."""
    front, full, facts = tables.front, tables.full, tables.facts
    tiles = []
    if has_claim(tables.savings):
        tiles.append(claim_tile(tables.savings))
    if len(front):
        tiles.append((str(len(front)), "points on the front"))
        tiles.append((decimal(front.fid.min()), "best FID of the search"))
    if full.fid is not None:
        tiles.append((decimal(full.fid), "FID of full width"))
    if full.gflops is not None:
        tiles.append((significant(full.gflops), "GFLOPs of full width"))
    tiles.append((f"{len(tables.trials):,}", "trials"))
    if (spent := number(facts.get("network_gflops"))) is not None:
        tiles.append((flops(spent), "network FLOPs"))
    if (seconds := number(facts.get("seconds"))) is not None:
        tiles.append((duration(seconds), "wall clock"))
    shown = "".join(f'<div class="tile"><b>{value}</b><span>{what}</span></div>' for value, what in tiles)
    return f'<div class="tiles">{shown}</div>'
