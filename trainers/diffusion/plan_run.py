"""Turn a plan into what a sampler applies: the coefficients of each step, what it reads, and the keys of its states."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.diffusion.solvers import Coefficients, find_solver
from stepfront.trainers.variant import Variant

ROUNDING = 1e-6
"""By how much a time may lie outside the schedule."""

Terms = tuple[tuple[int, float], ...]
"""Position of a step and its coefficient, latest first; zeros are left out."""


@dataclass(frozen=True)
class Step:
    """The coefficients of one step as plain floats, named as in `Coefficients`."""

    alpha: float
    sigma: float
    states: Terms
    clean: Terms
    noise: float


@dataclass(frozen=True)
class Reads:
    """The positions of the steps of which this or a later step reads the state, and the clean image."""

    states: tuple[int, ...] = ()
    clean: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.states) + len(self.clean)


@dataclass(frozen=True)
class PlanRun:
    """A plan with the coefficients of the steps that it takes."""

    plan: Plan
    schedule: NoiseSchedule

    def __len__(self) -> int:
        return len(self.taken)

    @cached_property
    def taken(self) -> tuple[int, ...]:
        """Return the positions in the plan of the steps that it takes."""
        return self.plan.taken

    @cached_property
    def coefficients(self) -> Coefficients:
        """Return the coefficients of the steps that the plan takes: the solver's, plus learnt corrections."""
        times = torch.tensor([self.plan.times[i] for i in self.taken], dtype=torch.float64)
        self._check_times((*times.tolist(), *self.network_times))
        found, learnt = find_solver(self.plan.solver)(self.schedule, times), self.plan.learnt
        if learnt is not None and learnt.states is not None:
            found = replace(found, states=found.states + torch.tensor(learnt.states, dtype=torch.float64))
        if learnt is not None and learnt.clean is not None:
            found = replace(found, clean=found.clean + torch.tensor(learnt.clean, dtype=torch.float64))
        return found

    def _check_times(self, times: tuple[float, ...]) -> None:
        """Raise InputError for a time outside the schedule, which could only be taken as its nearest one."""
        noisiest = self.schedule.steps - 1
        for time in times:
            if not -ROUNDING <= time <= noisiest + ROUNDING:
                raise InputError(
                    f"the plan {self.plan.runs} has the time {time:g}, outside the schedule's {noisiest} to 0; learn "
                    "its sampler again for this supernet"
                )

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Return the coefficients per step, converted once."""
        c = self.coefficients
        columns = (c.alpha.tolist(), c.sigma.tolist(), _terms(c.states), _terms(c.clean), c.noise.tolist())
        return tuple(Step(*row) for row in zip(*columns, strict=True))

    @cached_property
    def reads(self) -> tuple[Reads, ...]:
        """Return, before each step and after the last, which earlier steps are still read."""
        found = [Reads()]
        for position in reversed(range(len(self))):
            step, later = self.steps[position], found[-1]
            states = {j for j, _ in step.states} | {*later.states}
            clean = {j for j, _ in step.clean} | {*later.clean}
            found.append(Reads(*(tuple(sorted(j for j in read if j < position)) for read in (states, clean))))
        return tuple(reversed(found))

    @property
    def history(self) -> int:
        """Return the largest number of tensors that a state holds beside x."""
        return max(map(len, self.reads))

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """Return what each step that the plan takes runs."""
        return tuple(self.plan.variants[i] for i in self.taken)

    def reads_features(self, position: int) -> bool:
        """Return whether a step reads the deep features of the last full step; False after the last step."""
        return position < len(self) and self.variants[position].reuse

    def time(self, position: int, batch: int, device: torch.device) -> Tensor:
        """Return the time that the network is told at a step, [batch]; the times of all steps are made once."""
        tables: dict[tuple[int, torch.device], Tensor] = self.__dict__.setdefault("_times", {})
        if (batch, device) not in tables:
            times = torch.tensor(self.network_times, dtype=torch.float32)
            tables[batch, device] = times[:, None].expand(-1, batch).contiguous().to(device)
        return tables[batch, device][position]

    @property
    def network_times(self) -> tuple[float, ...]:
        """Return the times that the network is told at the steps that the plan takes."""
        times = self.plan.times if self.plan.learnt is None else self.plan.learnt.network_times
        return tuple(times[i] for i in self.taken)

    def prefix_key(self, position: int) -> str:
        """Return a digest of all that the state before step `position` depends on, except the noise.

        Equal keys mean equal states, in every process.
        """
        return self._prefix_keys[position]

    @cached_property
    def _prefix_keys(self) -> tuple[str, ...]:
        # The numbers themselves, not the solver's name: whatever a solver's rows depend on, equal rows move alike.
        digest, keys = hashlib.sha256(self.plan.weights.encode()), []
        for position, reads in enumerate(self.reads):
            here = digest.copy()
            reuses = self.reads_features(position)
            here.update(repr((reads, reuses)).encode())  # a plan that looks back further keeps more
            keys.append(here.hexdigest())
            if position < len(self):
                taken, time = self.taken[position], self.network_times[position]
                # A call that hands out its features may round differently under a compiling engine.
                mark, keeps = self.variants[position].mark, self.reads_features(position + 1)
                width = self.plan.widths[taken]
                digest.update(repr((taken, time, width, mark, keeps, self.steps[position])).encode())
        return tuple(keys)


def _terms(table: Tensor) -> list[Terms]:
    """Return the terms of each row of a table [N, N]."""
    found: list[list[tuple[int, float]]] = [[] for _ in range(len(table))]
    places = table.nonzero()
    for (row, column), number in zip(places.tolist(), table[tuple(places.T)].tolist(), strict=True):
        found[row].insert(0, (column, number))
    return [tuple(row) for row in found]
