"""Say which earlier searches a search started from, and what they were worth to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepfront.dashboards.formatting import plural


def earlier_sentences(facts: Mapping[str, Any]) -> list[str]:
    """Return one sentence per earlier search: its weight in the model of FID early in the search and now."""
    sentences = []
    for one in facts.get("earlier") or []:
        started = f"It started from {one['name']} ({plural(one['trials'], 'trial')})"
        after, weight = one["after"], one["weight"]
        if one.get("lacking"):
            sentences.append(f"{started}, of which it used the front alone: {one['lacking']}.")
            continue
        if not after:
            sentences.append(f"{started}, whose worth is unknown before 4 trials.")
            continue
        first = f"{weight[0]:.2f} after {after[0]} trials and " if len(after) > 1 else ""
        sentences.append(f"{started}: its weight in the model of FID was {first}{weight[-1]:.2f} after {after[-1]}.")
    return sentences
