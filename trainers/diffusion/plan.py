"""Define a plan, which is what a sampler executes: the time and the width (or skip) of each step, and the solver.

People read a plan as run lengths: `12x0.50 3xskip 5x1.00`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from stepfront.errors import InputError
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler

SKIP = 0.0
"""The width of a step that is not taken."""

_RUN = re.compile(r"(\d+)x(skip|\d*\.?\d+)")


@dataclass(frozen=True)
class Plan:
    """`times` [N] (training-time units, falling), `widths` [N] (`SKIP` where a step is not taken), `solver` by name.

    With a `learnt` sampler, times and solver are its own, and no step is skipped.  `grid` names the time grid that the
    times are of; empty where they are of none.
    """

    times: tuple[float, ...]
    widths: tuple[float, ...]
    solver: str = "ddim"
    learnt: LearntSampler | None = None
    grid: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if len(self.times) != len(self.widths):
            raise InputError(f"a plan of {len(self.times)} times and {len(self.widths)} widths; give equally many")
        if any(later >= earlier for earlier, later in zip(self.times, self.times[1:], strict=False)):
            raise InputError("a plan's times must decrease, from noise to image")
        if not any(self.widths):
            raise InputError("a plan must take at least one step; all of its steps are skipped")
        if self.learnt is not None:
            self._check_learnt(self.learnt)

    @property
    def taken(self) -> tuple[int, ...]:
        """Return the positions of the steps that are not skipped."""
        return tuple(i for i, width in enumerate(self.widths) if width != SKIP)

    @property
    def runs(self) -> str:
        """Return the widths as run lengths in sampling order."""
        return runs_text(self.widths)

    def _check_learnt(self, learnt: LearntSampler) -> None:
        if len(self.times) != len(learnt.times):
            raise InputError(
                f"a plan of {len(self.times)} steps on a sampler learnt for {len(learnt.times)}; learn one for "
                f"{len(self.times)} steps"
            )
        if (self.times, self.solver) != (learnt.times, learnt.solver):
            raise InputError("a plan on a learnt sampler must have the sampler's own times and solver")
        if SKIP in self.widths:
            raise InputError("a plan on a learnt sampler can't skip steps; learn a sampler of fewer steps")

    def check_widths(self, possible: Iterable[float]) -> None:
        """Raise InputError when a step runs at a width that the supernet does not have."""
        possible = tuple(possible)
        for width in self.widths:
            if width != SKIP and width not in possible:
                raise InputError(f"the plan runs at width {width:g}; possible: {', '.join(map(str, possible))}")


def runs_text(widths: Sequence[float]) -> str:
    """Return widths per step as run lengths, `12x0.50 8x1.00`, with more than two digits where a width needs them."""
    return " ".join(f"{len(list(run))}x{_width_text(width)}" for width, run in groupby(widths))


def parse_runs(text: str) -> tuple[float, ...]:
    """Return the widths per step from run lengths.  Raises InputError when the text is not run lengths."""
    widths: list[float] = []
    for word in text.split():
        match = _RUN.fullmatch(word)
        if match is None:
            raise InputError(f"{word!r} in the plan {text!r} is not a run; runs look like 12x0.50 or 3xskip")
        widths += [SKIP if match[2] == "skip" else float(match[2])] * int(match[1])
    return tuple(widths)


def _width_text(width: float) -> str:
    if width == SKIP:
        return "skip"
    short = f"{width:.2f}"
    return short if float(short) == width else f"{width:g}"
