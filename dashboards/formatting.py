"""Format numbers and plans for people: shares, durations, FLOPs, shortened plans."""

from __future__ import annotations

import math
from typing import Any

MISSING = "–"
FLOP_UNITS = (("EFLOPs", 1e9), ("PFLOPs", 1e6), ("TFLOPs", 1e3), ("GFLOPs", 1.0))


def decimal(value: Any, places: int = 2) -> str:
    """Format a number with fixed decimals: 3.14159 -> 3.14; a missing value -> a dash."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return MISSING
    return f"{value:,.{places}f}" if math.isfinite(value) else MISSING


def significant(value: Any, digits: int = 3) -> str:
    """Format an amount of any size by its leading digits: 1.23456 -> 1.23, 1234.5 -> 1,234, 0.00123 -> 0.00123."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return MISSING
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def percent(share: float | None, places: int = 0) -> str:
    """Format a share as a percentage: 0.413 -> 41%."""
    return MISSING if share is None or not math.isfinite(share) else f"{100 * share:.{places}f}%"


def ratio(part: Any, whole: float | None) -> float:
    """Return part / whole, or NaN where there is no whole."""
    return float(part) / whole if whole else math.nan


def interval(low: Any, high: Any, places: int = 2) -> str:
    """Format an interval: (29.1, 30.4) -> [29.10, 30.40]; "" when either end is missing."""
    ends = decimal(low, places), decimal(high, places)
    return "" if MISSING in ends else f"[{ends[0]}, {ends[1]}]"


def equal_point(trial: Any) -> str:
    """Name a trial: 12 -> trial 12; a negative number, which stands for no trial -> ""."""
    return f"trial {trial}" if trial >= 0 else ""


def duration(seconds: float) -> str:
    """Format seconds in two units at most: 42 s, 3 min 20 s, 5 h 2 min, 3 d 4 h."""
    whole = round(seconds)
    for (unit, size), (lesser, part) in (
        (("d", 86400), ("h", 3600)),
        (("h", 3600), ("min", 60)),
        (("min", 60), ("s", 1)),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {lesser}" if rest else "")
    return f"{whole} s"


def flop_unit(largest_gflops: float) -> tuple[str, float]:
    """Return the unit in which the largest amount reads best, and its size in GFLOPs."""
    return next((unit for unit in FLOP_UNITS if largest_gflops >= unit[1]), FLOP_UNITS[-1])


def flops(gflops: float) -> str:
    """Format GFLOPs in the unit that reads best: 2.5e6 -> 2.5 PFLOPs."""
    unit, size = flop_unit(gflops)
    return f"{gflops / size:.3g} {unit}"


def short_plan(plan: str, limit: int) -> str:
    """Return the plan's first runs, up to `limit` characters, and how many runs were left out."""
    if len(plan) <= limit:
        return plan
    runs = plan.split(" ")
    kept = plan[:limit].rsplit(" ", 1)[0].split(" ")
    return f"{' '.join(kept)} … {plural(len(runs) - len(kept), 'more run')}" if len(runs) > len(kept) else plan[:limit]


def method_name(method: str) -> str:
    """Format the name of a method: two_cut -> two cut."""
    return method.replace("_", " ")


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: 1 trial, 2 trials, 1,200 trials."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
