"""Hold what is learnt of one sampler, and turn it into coefficients."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.diffusion.solvers import Coefficients, find_solver
from stepfront.trainers.learning_settings import Learnt
from stepfront.trainers.sampler_learning.times import falling_times, logits_of, network_times

MOST_SHARE = 0.97
"""Of the noisiest time: where a first time that is learnt begins, at most.  The noise there is hardly less."""

MOST_LEARNT_SHARE = 0.9999
"""The same, of a sampler that was learnt elsewhere: its first time may have moved closer."""


@dataclass(frozen=True)
class Frame:
    """What does not change while a sampler is learnt: solver, schedule, least gap, and which parts are learnt."""

    solver: str
    schedule: NoiseSchedule
    gap: float
    learnt: Learnt
    learn_start: bool = True

    @property
    def noisiest(self) -> float:
        return float(self.schedule.steps - 1)


@dataclass(frozen=True)
class Parameters:
    """Float64 tensors: logits of the gaps [N], the first time's logit [], offsets [N], corrections [N, N] twice.

    `clean` is in units of the scaled clean image alpha x0: at the noisy end x0 itself is large and uncertain.
    """

    theta: Tensor
    first: Tensor
    offsets: Tensor
    states: Tensor
    clean: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by their names."""
        return dict(vars(self))

    def copy(self) -> Parameters:
        """Return copies without gradients."""
        return Parameters(**{name: value.detach().clone() for name, value in self.tensors().items()})


def initial_parameters(frame: Frame, sampler: LearntSampler) -> Parameters:
    """Return the parameters of a sampler: its times, and its offsets and corrections, none for a closed form.

    Unless the first time is learnt, it becomes the noisiest.
    """
    times = torch.tensor(sampler.times, dtype=torch.float64)
    offsets = torch.tensor(sampler.network_times, dtype=torch.float64) - times
    if not frame.learn_start:
        times = torch.cat([times.new_tensor([frame.noisiest]), times[1:]])
    steps, share = len(times), times[0] / frame.noisiest
    if frame.learn_start:
        # At the noisiest time itself the logit would be infinite.  A first time that was learnt may be close to it.
        share = share.clamp_max(MOST_SHARE if sampler.states is None and not offsets.any() else MOST_LEARNT_SHARE)
        times = torch.minimum(times, share * frame.noisiest - frame.gap * torch.arange(steps, dtype=times.dtype))
    states, clean = (
        times.new_zeros(steps, steps) if table is None else torch.tensor(table, dtype=torch.float64)
        for table in (sampler.states, sampler.clean)
    )
    theta = logits_of(times, frame.gap)
    return Parameters(theta, torch.logit(share), offsets, states, clean / frame.schedule.alpha(times))


def learnt_names(frame: Frame) -> list[str]:
    """Return the names of the parameters that are learnt."""
    names = ["theta"]
    if frame.learn_start:
        names.append("first")
    if frame.learnt != "times":
        names.append("offsets")
    if frame.learnt == "solver":
        names += ["states", "clean"]
    return names


def times_of(frame: Frame, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Return the solver's times and the network's, both [N]."""
    first = frame.noisiest * torch.sigmoid(parameters.first)
    first = first.clamp_min(len(parameters.theta) * frame.gap * 1.01)
    times = falling_times(parameters.theta, first, frame.gap)
    told = times if frame.learnt == "times" else network_times(times, parameters.offsets, frame.noisiest)
    return times, told


def coefficients_of(frame: Frame, parameters: Parameters) -> tuple[Coefficients, Tensor]:
    """Return the coefficients of the parameters, and the times that the network is told."""
    times, told = times_of(frame, parameters)
    base = find_solver(frame.solver)(frame.schedule, times)
    if frame.learnt != "solver":
        return base, told
    states, clean = corrections(base, parameters)
    return replace(base, states=base.states + states, clean=base.clean + clean), told


def corrections(base: Coefficients, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Return what is added to the solver's coefficients of states and clean images, both [N, N] lower triangular."""
    return parameters.states.tril(), parameters.clean.tril() * base.alpha


@torch.no_grad()
def learnt_sampler_of(frame: Frame, parameters: Parameters) -> LearntSampler:
    """Return the parameters as a sampler that plans can carry."""
    times, told = times_of(frame, parameters)
    states = clean = None
    if frame.learnt == "solver":
        tables = corrections(find_solver(frame.solver)(frame.schedule, times), parameters)
        states, clean = (tuple(map(tuple, table.tolist())) for table in tables)
    return LearntSampler(frame.solver, tuple(times.tolist()), tuple(told.tolist()), states, clean)


def project(frame: Frame, parameters: Parameters) -> None:
    """Keep the offsets within their limits, so that their gradient does not vanish beyond."""
    with torch.no_grad():
        times, told = times_of(frame, parameters)
        if frame.learnt != "times":
            parameters.offsets.copy_(told - times)
