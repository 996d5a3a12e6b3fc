"""Draw the list of runs as a table."""

from __future__ import annotations

from collections.abc import Sequence

from stepfront.dashboards.terminal.fitted_table import FittedTable, TextColumn, cut_text
from stepfront.search.records.run_list import RunSummary

MISSING = "–"


def run_table(runs: Sequence[RunSummary]) -> FittedTable:
    """Return the table, one line per run.

    `saved` is of full width's FLOPs at all steps, where a claim of equal quality holds, and `by widths` of the FLOPs of
    the cheapest full-width sampler of equal quality.
    """

    def numbers(name: str, texts: Sequence[str]) -> TextColumn:
        return TextColumn(name, texts, right=True)

    return FittedTable(
        [
            TextColumn("run", [run.name for run in runs], shorten=cut_text),
            TextColumn("state", [run.state for run in runs]),
            numbers("trials", [_count(run.trials) for run in runs]),
            numbers("points", [_count(run.points) for run in runs]),
            numbers("best FID", [MISSING if run.best_fid is None else f"{run.best_fid:.2f}" for run in runs]),
            numbers("saved", [_saved(run) for run in runs]),
            numbers("by widths", [_percent(run.flops_saved_against_best_full_width) for run in runs]),
            numbers("size", [size_text(run.bytes) for run in runs]),
        ]
    )


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def _saved(run: RunSummary) -> str:
    return "none shown" if run.confirmed and run.flops_saved is None else _percent(run.flops_saved)


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{share:.0%}"


def size_text(count: int) -> str:
    """Return a size with three digits: 4.87 MB."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"
