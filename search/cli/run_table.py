"""Draw the list of runs as a table that fits 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from stepfront.search.records.run_list import RunSummary

MISSING = "–"


def run_table(runs: Sequence[RunSummary]) -> Table:
    """Return the table, one line per run.  `saved` is of full width's FLOPs, where a claim of equal quality holds."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("state", no_wrap=True)
    for name in ("trials", "points", "best FID", "saved", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        numbers = [MISSING if value is None else f"{value:,}" for value in (run.trials, run.points)]
        best = MISSING if run.best_fid is None else f"{run.best_fid:.2f}"
        table.add_row(run.name, run.state, *numbers, best, _saved(run), _size(run.bytes))
    return table


def _saved(run: RunSummary) -> str:
    if run.flops_saved is not None:
        return f"{run.flops_saved:.0%}"
    return "none shown" if run.confirmed else MISSING


def _size(count: int) -> str:
    """Return a size with three digits: 4.87 MB."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"
