"""Set what the figures share: colours safe for colour-blind readers, one mark per method, the layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Okabe and Ito (2008), without black and yellow: one vanishes on a dark page, the other on a light one.
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
MUTED = "#8C8C8C"
FRONT = VERMILION
FULL = GREEN

WIDE_SPAN = 8.0  # beyond this ratio of largest to smallest, a linear axis squeezes the small values together


@dataclass(frozen=True)
class Mark:
    """Hold how a method is drawn: colour, plotly's name of the symbol, matplotlib's."""

    colour: str
    symbol: str
    marker: str


# Both symbol and colour identify a method, so either alone is enough.
METHOD_MARKS = {
    "uniform": Mark(BLUE, "square", "s"),
    "one_cut": Mark(SKY, "triangle-up", "^"),
    "two_cut": Mark(GREEN, "triangle-down", "v"),
    "monotone": Mark(PURPLE, "diamond", "D"),
    "random": Mark(ORANGE, "x", "X"),
    "gap": Mark(PURPLE, "pentagon", "p"),
    "fewer_steps": Mark(SKY, "cross", "P"),
    "ddsm": Mark(ORANGE, "hexagram", "*"),
    "samplers": Mark(GREEN, "star-triangle-up", "2"),
}
OTHER_METHOD = Mark(BLUE, "circle-open", "h")
LINE_COLOURS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def method_mark(method: str) -> Mark:
    """Return the mark of a baseline method, the same in every figure."""
    return METHOD_MARKS.get(method, OTHER_METHOD)


def axis_type(values: Sequence[float] | np.ndarray) -> str:
    """Logarithmic ("log") when positive values span more than a factor of eight, else "linear"."""
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers) or numbers.min() <= 0:
        return "linear"
    return "log" if numbers.max() > WIDE_SPAN * numbers.min() else "linear"


def axis(title: str, values: Sequence[float] | np.ndarray | None = None) -> dict[str, Any]:
    """Return the settings of an axis, logarithmic when the values span enough."""
    kind = "linear" if values is None else axis_type(values)
    settings: dict[str, Any] = {"title": {"text": title}, "type": kind, "zeroline": False, "automargin": True}
    settings["minexponent"] = 5  # 0.0005, not 500µ
    return settings | ({"tickvals": decade_ticks(values)} if kind == "log" and values is not None else {})


def decade_ticks(values: Sequence[float] | np.ndarray) -> list[float]:
    """Return 1, 2 and 5 of each decade that the positive values touch; plotly would write 2 and 5 in tiny type."""
    low, high = np.log10(np.nanmin(values)), np.log10(np.nanmax(values))
    return [digit * 10.0**decade for decade in range(math.floor(low), math.floor(high) + 1) for digit in (1, 2, 5)]


def layout(height: int, **settings: Any) -> dict[str, Any]:
    """Return a layout without background or template; the page sets the colours of text and grid."""
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0}
    shared = {
        "template": None,
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "#555555", "size": 13, "family": "system-ui, sans-serif"},
        "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
        "legend": legend,
        "hoverlabel": {"align": "left"},
    }
    return shared | settings
