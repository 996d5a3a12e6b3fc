"""Report what was run (facts, versions, costs of the widths, failures, settings), and which tables are missing."""

from __future__ import annotations

from html import escape
from typing import Any

from stepfront.dashboards.formatting import MISSING, plural, significant
from stepfront.dashboards.html.page import html_table
from stepfront.tables.schema import TABLES
from stepfront.tables.search_tables import SearchTables

FACTS = {
    "search_id": "search",
    "dataset": "data set",
    "fingerprint": "data fingerprint",
    "supernet_digest": "supernet",
    "features": "features of FID",
    "images": "images per score",
    "noise_seed": "noise seed",
    "steps": "steps",
    "solver": "solver",
    "classes": "classes",
    "guidance": "classifier-free guidance",
    "calls_a_step": "network calls per step",
    "autoencoder": "autoencoder",
    "autoencoder_digest": "digest of the autoencoder",
    "latent_shape": "latents (channels, side, side)",
    "gflops_decode": "GFLOPs to decode an image, not in a plan's GFLOPs",
    "latency_ms_decode": "ms to decode an image, not in a plan's latency",
    "widths": "widths",
    "variants": "variants of a step (r: reuses features, u: unguided, g3: guidance of scale 3, d2: depth 2)",
    "encoding": "encoding",
    "skip": "skipped steps allowed",
    "reference_point": "reference point (GFLOPs, FID)",
    "device": "device",
    "engine": "inference engine",
    "created": "created",
    "finished": "finished",
    "parent_searches": "started from",
    "command": "command",
}
MOST_ERRORS = 10
ERROR_LENGTH = 300


def facts_section(tables: SearchTables) -> str:
    """Return the section, without the parts that are unknown."""
    facts = tables.facts
    known = [(label, _said(facts[key])) for key, label in FACTS.items() if facts.get(key) not in (None, "", [])]
    parts = [html_table(("fact", "value"), known)] if known else []
    versions = facts.get("versions")
    if isinstance(versions, dict) and versions:
        parts += ["<h3>Versions</h3>", html_table(("package", "version"), sorted(versions.items()))]
    parts += [_width_costs(facts.get("width_costs")), _failures(tables)]
    if tables.settings.strip():
        parts.append(f"<h3>Settings</h3><pre>{escape(tables.settings)}</pre>")
    return "".join(parts)


def _said(value: Any) -> str:
    return ", ".join(map(_said, value)) if isinstance(value, list) else str(value)


def _width_costs(costs: Any) -> str:
    rows = [
        (
            cost.get("width", MISSING),
            significant(cost.get("gmacs")),
            significant(cost.get("parameters"), 4),
            significant(cost.get("latency_ms")),
            cost.get("batch", MISSING),
            cost.get("device", MISSING),
        )
        for cost in (costs if isinstance(costs, list) else [])
        if isinstance(cost, dict)
    ]
    columns = (">width", ">GMACs per call", ">parameters", ">ms per call", ">batch", "device")
    return f"<h3>Cost per width</h3>{html_table(columns, rows)}" if rows else ""


def _failures(tables: SearchTables) -> str:
    failed = tables.trials[tables.trials.state != "complete"]
    if failed.empty or "error" not in failed:
        return ""
    reasons = failed.error.fillna("").astype(str).str.slice(0, ERROR_LENGTH).value_counts()
    more = f" The {MOST_ERRORS} most frequent reasons:" if len(reasons) > MOST_ERRORS else ""
    rows = [(count, reason or MISSING) for reason, count in reasons.head(MOST_ERRORS).items()]
    table = html_table((">trials", "reason"), rows)
    return f"<h3>Failures</h3><p>{plural(len(failed), 'trial')} failed.{more}</p>{table}"


def missing_note(tables: SearchTables, *files: str) -> str:
    """Return a note for the tables among `files` that the search once had and that are missing; "" where none is."""
    gone = [name for name in files if name in tables.missing]
    if not gone:
        return ""
    verbs = dict.fromkeys(_remedy(TABLES[name].made_by, tables) for name in gone)
    are = "is" if len(gone) == 1 else "are"
    it = "it" if len(gone) == 1 else "them"
    return (
        f"<p><strong>{escape(', '.join(gone))} {are} missing</strong>, so nothing can be shown here. "
        f"To make {it} again: <code>{escape('; '.join(verbs))}</code></p>"
    )


def _remedy(made_by: str, tables: SearchTables) -> str:
    run = tables.directory.resolve().parent
    return f"stepfront doctor {run} --repair" if made_by == "search" else f"stepfront {made_by} {run}"
