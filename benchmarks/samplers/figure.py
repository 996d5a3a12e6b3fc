"""Draw the figure of docs/bench-sampler.md: Frechet distance against steps, one panel per supernet and judge."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks.samplers.tables import HAND, hand_samplers, is_full_width, is_learnt, judges_of
from stepfront.dashboards.figures.style import BLUE, MUTED, ORANGE, VERMILION
from stepfront.trainers.config import SamplerSettings

Line = tuple[str, pd.Series]

STYLES = {
    "default": (MUTED, "s", ":"),
    "best hand sampler": (BLUE, "o", "-"),
    "learnt times": (ORANGE, "^", "--"),
    "learnt solver": (VERMILION, "D", "--"),
}
JUDGES = ("FD degradations", "FD classifier")


def lines_of(table: pd.DataFrame, judge: str) -> list[Line]:
    """Return the mean distance by steps of the default, the best hand sampler and what is learnt."""
    table = pd.concat([hand_samplers(table), table[is_learnt(table)]])
    scored = table[is_full_width(table)].pivot_table(index="sampler", columns="steps", values=judge)
    default = f"{SamplerSettings().solver}, {SamplerSettings().grid}"
    lines = [
        ("default", scored.reindex([default]).loc[default]),
        ("best hand sampler", scored[scored.index.isin(HAND)].min()),
    ]
    lines += [(name, scored.loc[name]) for name in ("learnt times", "learnt solver") if name in scored.index]
    return [(name, line.dropna()) for name, line in lines if line.notna().any()]


def draw(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """Draw a column of panels per supernet; those of one alone stand beside each other."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    alone = len(tables) == 1
    figure = Figure(figsize=(7.2, 3.4) if alone else (3.6 * len(tables), 6.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(*((1, len(JUDGES)) if alone else (len(JUDGES), len(tables))), squeeze=False)
    if alone:
        axes = axes.T
    for row, judge in enumerate(JUDGES):
        for column, (name, table) in enumerate(tables.items()):
            panel = axes[row, column]
            for label, line in lines_of(table, judge) if judge in judges_of(table) else ():
                colour, marker, dash = STYLES[label]
                panel.plot(line.index, line, dash, color=colour, marker=marker, ms=4, lw=1.4, label=label)
            if panel.lines:  # an empty panel has no logarithmic scale
                panel.set(xscale="log", yscale="log")
            panel.set_title(name if row == 0 and not alone else "")
            ticks = [3, 4, 5, 6, 8, 10, 15, 20, 50]
            panel.set_xticks(ticks, map(str, ticks))
            panel.set_xticks([], minor=True)
            panel.grid(alpha=0.25, which="both")
            panel.set_ylabel(f"distance by {judge.removeprefix('FD ')}")
            panel.set_xlabel("steps")
    most = max(axes.flat if alone else axes[0], key=lambda panel: len(panel.lines))
    if most.lines:
        most.legend(frameon=False)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "stepfront"}):  # letters as text; equal ids
        figure.savefig(path, metadata={"Date": None})
