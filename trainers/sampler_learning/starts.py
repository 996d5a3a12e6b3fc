"""Name what learning can start from: every deterministic solver on every hand grid, and samplers learnt elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import get_args

import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.plugins import SOLVERS
from stepfront.trainers.config import SamplerSettings
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.schedule import NoiseSchedule, time_grid
from stepfront.trainers.diffusion.solvers import Coefficients, find_solver
from stepfront.trainers.sampler_learning.distances import Distance
from stepfront.trainers.sampler_learning.pairs import Pairs
from stepfront.trainers.sampler_learning.trajectory import Student, run

GRIDS: tuple[str, ...] = get_args(SamplerSettings.model_fields["grid"].annotation)
"""All hand grids."""

SAMPLERS = (
    ("unipc_2", "quadratic"),
    ("unipc_2", "quadratic_open"),
    ("unipc_2", "leading"),
    ("unipc_2", "trailing"),
    ("dpmpp_2m", "edm_open"),
    ("ipndm_3", "leading"),
)
"""Solver and grid of the hand samplers: those that lead some judge at some number of steps.

docs/bench-solvers.md has the measurements.
"""


@dataclass(frozen=True)
class ClosedForm:
    """A solver on a hand grid."""

    solver: str
    grid: str
    times: tuple[float, ...]

    @property
    def name(self) -> str:
        """The solver and the grid, as tables name them."""
        return f"{self.solver}, {self.grid} grid"

    def sampler(self) -> LearntSampler:
        """Return it as a sampler without corrections."""
        return LearntSampler(self.solver, self.times, self.times)

    def coefficients(self, schedule: NoiseSchedule) -> tuple[Coefficients, Tensor]:
        """Return its coefficients, and the times that the network is told."""
        times = torch.tensor(self.times, dtype=torch.float64)
        return find_solver(self.solver)(schedule, times), times


@dataclass(frozen=True)
class EarlierStart:
    """A sampler that was learnt elsewhere, to learn from beside the closed forms; `name` says where it comes from."""

    name: str
    learnt: LearntSampler

    def sampler(self) -> LearntSampler:
        """Return it with its corrections."""
        return self.learnt


Start = ClosedForm | EarlierStart
"""What learning begins from."""


def closed_forms(schedule: NoiseSchedule, steps: int, solvers: Iterable[str] = ()) -> list[ClosedForm]:
    """Return every different pair of a deterministic solver and a grid.

    Raises InputError when a solver that is asked for adds noise: a teacher's image does not tell which.
    """
    asked = tuple(solvers)
    for solver in asked:
        if steps > 1 and _adds_noise(schedule, solver, steps):
            raise InputError(
                f"the solver {solver} adds noise, so it has no image to learn from; give a deterministic solver"
            )
    return different_forms(schedule, steps, product(asked or SOLVERS.ours, GRIDS))


def different_forms(schedule: NoiseSchedule, steps: int, pairs: Iterable[tuple[str, str]]) -> list[ClosedForm]:
    """Return the closed forms of pairs of solver and grid; of equal ones the first, and none that adds noise."""
    found: dict[tuple[object, ...], ClosedForm] = {}
    for solver, grid in pairs:
        form = ClosedForm(solver, grid, tuple(map(float, time_grid(schedule, grid, steps))))
        table, _ = form.coefficients(schedule)
        if steps > 1 and bool(table.noise.any()):
            continue
        # Two solvers may be one and the same for few steps.
        same = (form.times, *table.states.flatten().tolist(), *table.clean.flatten().tolist())
        found.setdefault(same, form)
    return list(found.values())


def _adds_noise(schedule: NoiseSchedule, solver: str, steps: int) -> bool:
    times = torch.from_numpy(time_grid(schedule, GRIDS[0], steps).copy())
    return bool(find_solver(solver)(schedule, times).noise.any())


@torch.no_grad()
def mean_distance(
    student: Student, form: tuple[Coefficients, Tensor], pairs: Pairs, distance: Distance, batch: int = 64
) -> Tensor:
    """Return the distance of each pair, [P] float64."""
    parts = []
    for first in range(0, len(pairs), batch):
        part = pairs.part(slice(first, first + batch))
        images = run(student, *form, part.noise, part.labels)
        parts.append(distance(images, part.target).double())
    return torch.cat(parts)


def best_starts(
    student: Student, forms: list[ClosedForm], pairs: Pairs, distance: Distance, count: int
) -> list[ClosedForm]:
    """Return the `count` closed forms of the smallest distance, best first; one of each solver comes before two."""
    scores = {
        form: float(mean_distance(student, form.coefficients(student.schedule), pairs, distance).mean())
        for form in forms
    }
    ranked = sorted(scores, key=lambda form: scores[form] if scores[form] == scores[form] else float("inf"))
    first_of_solver = {form.solver: form for form in reversed(ranked)}
    leaders = [form for form in ranked if first_of_solver[form.solver] == form]
    others = [form for form in ranked if form not in leaders]
    return [ranked[0], *(form for form in [*leaders, *others] if form != ranked[0])][:count]
