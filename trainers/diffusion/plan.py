"""Define a plan, which is what a sampler executes: the time and the variant (or skip) of each step, and the solver.

People read a plan as run lengths: `12x0.50 3xskip 5x1.00` (variant.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from stepfront.errors import InputError
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.variant import SKIP, Variant, depth_problem, is_mark, marked, reuse_problem, runs_text


@dataclass(frozen=True)
class Plan:
    """`times` [N] (training-time units, falling), `widths` [N] (`SKIP` where a step is not taken), `solver` by name.

    With a `learnt` sampler, times and solver are its own, and no step is skipped.  `grid` names the time grid that the
    times are of; empty where they are of none.  `marks` [N], such as `r`, make variants of the widths; a plan of widths
    alone has none.  `weights` names weights that were fitted to the plan; empty where it runs on the supernet's own.
    """

    times: tuple[float, ...]
    widths: tuple[float, ...]
    solver: str = "ddim"
    learnt: LearntSampler | None = None
    grid: str = field(default="", compare=False)
    marks: tuple[str, ...] = ()
    weights: str = ""

    def __post_init__(self) -> None:
        if len(self.times) != len(self.widths):
            raise InputError(f"a plan of {len(self.times)} times and {len(self.widths)} widths; give equally many")
        if any(later >= earlier for earlier, later in zip(self.times, self.times[1:], strict=False)):
            raise InputError("a plan's times must decrease, from noise to image")
        if not any(self.widths):
            raise InputError("a plan must take at least one step; all of its steps are skipped")
        if self.learnt is not None:
            self._check_learnt(self.learnt)
        if self.marks:
            self._check_marks()

    @staticmethod
    def of(
        times: Sequence[float],
        variants: Sequence[Variant],
        solver: str = "ddim",
        learnt: LearntSampler | None = None,
        grid: str = "",
    ) -> Plan:
        """Return the plan of these variants."""
        marks = tuple(variant.mark for variant in variants)
        widths = tuple(variant.width for variant in variants)
        return Plan(tuple(times), widths, solver, learnt, grid, marks if any(marks) else ())

    @property
    def taken(self) -> tuple[int, ...]:
        """Return the positions of the steps that are not skipped."""
        return tuple(i for i, width in enumerate(self.widths) if width != SKIP)

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """Return what each step runs."""
        return tuple(map(marked, self.widths, self.marks or ("",) * len(self.widths)))

    @property
    def runs(self) -> str:
        """Return the variants as run lengths in sampling order."""
        return runs_text(self.variants)

    @property
    def reuses(self) -> bool:
        """Return whether some step reuses the features of another."""
        return any(variant.reuse for variant in self.variants)

    def runs_only(self, width: float) -> bool:
        """Return whether every step that is taken runs this width, without marks."""
        return {self.variants[i] for i in self.taken} == {Variant(width)}

    @property
    def switches_guidance(self) -> bool:
        """Return whether some step is unguided, or has a scale of guidance of its own."""
        return any(not variant.guided or variant.scale is not None for variant in self.variants)

    def on_times(self, times: Sequence[float], solver: str, learnt: LearntSampler | None = None) -> Plan:
        """Return a plan of the same variants on other times."""
        return replace(self, times=tuple(times), solver=solver, learnt=learnt, grid="")

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

    def _check_marks(self) -> None:
        if len(self.marks) != len(self.widths):
            raise InputError(f"a plan of {len(self.widths)} widths and {len(self.marks)} marks; give equally many")
        for width, mark in zip(self.widths, self.marks, strict=True):
            if not is_mark(mark) or (mark and width == SKIP):
                raise InputError(
                    f"{mark!r} is not a mark of a step; possible: r, u, ru, d1, d1u and other depths, g3, rg3, d1g3 "
                    "and other scales, and none at a skipped step"
                )
        if problem := reuse_problem(self.variants):
            raise InputError(f"the plan {self.runs}: {problem}")

    def check_widths(self, possible: Iterable[float]) -> None:
        """Raise InputError when a step runs at a width that the supernet does not have."""
        possible = tuple(possible)
        for width in self.widths:
            if width != SKIP and width not in possible:
                raise InputError(f"the plan runs at width {width:g}; possible: {', '.join(map(str, possible))}")

    def check_depths(self, possible: Iterable[int]) -> None:
        """Raise InputError when a step runs at a depth that was not trained, or by `d` at the full one."""
        possible = tuple(possible)
        for variant in self.variants:
            if problem := depth_problem(variant, possible):
                raise InputError(f"the plan {self.runs} runs {variant}: {problem}")
