"""Say which earlier searches a search started from, and what they were worth to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepfront.dashboards.formatting import plural
from stepfront.tables.samplers import carried_samplers


def earlier_sentences(facts: Mapping[str, Any]) -> list[str]:
    """Return sentences on each earlier search: its weight in the model of FID early in the search and now.

    One more says where learning started from its samplers.
    """
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
    for search, (tried, taken) in carried_samplers(facts).items():
        took = f"took those of {_numbers(taken)}" if taken else "took none of them"
        sentences.append(f"Learning tried the samplers of {search} of {_numbers(tried)} steps as starts, and {took}.")
    return sentences


def _numbers(steps: Sequence[int]) -> str:
    *others, last = map(str, steps)
    return f"{', '.join(others)} and {last}" if others else last
