"""Name samplers: solver and grid of the rows of a table, and starts of learning that earlier searches gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

GENES_MARK = "/"
"""What stands in a genome between the widths and the genes of solver and grid."""


def sampler_texts(plans: pd.DataFrame) -> list[str]:
    """Return solver and grid of each row, `unipc_2, leading grid`; nothing where plans can't choose theirs."""
    genomes = plans.get("genome", pd.Series(dtype=str)).astype(str)
    if not genomes.str.contains(GENES_MARK, regex=False).any():
        return []
    return [
        f"{solver}, {grid} grid" if grid else f"learnt from {solver}"
        for solver, grid in zip(plans["solver"], plans["grid"], strict=True)
    ]


def earlier_start_name(search: str) -> str:
    """Return what a sampler of an earlier search is called among the starts of learning."""
    return f"the sampler of {search}"


def carried_samplers(facts: Mapping[str, Any]) -> dict[str, tuple[list[int], list[int]]]:
    """Return, by earlier search, the numbers of steps whose learning tried its sampler, and of those that took it."""
    learnt = [one for one in facts.get("learning") or [] if isinstance(one, dict)]
    found = {}
    for search in dict.fromkeys(one["name"] for one in facts.get("earlier") or []):
        name = earlier_start_name(search)
        tried = [one for one in learnt if any(start["name"] == name for start in one.get("tried") or [])]
        if tried:
            taken = [one for one in tried if one.get("taken") == name]
            found[search] = sorted(int(one["steps"]) for one in tried), sorted(int(one["steps"]) for one in taken)
    return found
