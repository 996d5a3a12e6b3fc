"""Keep the samplers that earlier searches have learnt, and choose those that this search's learning can start from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepfront.arrays import Array
from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.search.records.learnt_samplers import SamplerRecord, read_search_samplers
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.diffusion.solvers import find_solver

_FILE, _BY_STEPS, _DAMAGED = "samplers.json", "by_steps", "damaged"


def keep_samplers(source: Path, place: Path) -> None:
    """Write the samplers of the search in `source` into `place`, or why they can't be read; nothing without any."""
    try:
        found = {str(steps): record.to_json() for steps, record in read_search_samplers(source).items()}
        content: dict[str, Any] = {_BY_STEPS: found}
    except (InputError, KeyError, TypeError, AttributeError, ValueError) as error:
        found, content = {}, {_DAMAGED: str(error)}
    if found or _DAMAGED in content:
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / _FILE, content)


@dataclass(frozen=True)
class Carried:
    """Samplers of an earlier search that learning can start from, by number of steps, and one line on what can't.

    `sentence` is empty where the earlier search has learnt none.
    """

    samplers: dict[int, LearntSampler]
    sentence: str


@dataclass(frozen=True)
class WantedSamplers:
    """What a search learns: which part of a sampler, over which noise, and from which solvers (empty: any)."""

    learnt: str
    schedule: NoiseSchedule
    solvers: Sequence[str] = ()

    def carried(self, name: str, place: Path, times: Array, half_log_snr: Array, counts: Iterable[int]) -> Carried:
        """Return what is kept in `place` of the earlier search `name`, for these numbers of steps.

        `half_log_snr` [N] is that of the `times` [N] of the earlier search.
        """
        if not (place / _FILE).exists():
            return Carried({}, "")
        try:
            content = read_json(place / _FILE, "list of learnt samplers")
            if _DAMAGED in content:
                raise InputError(content[_DAMAGED])
            records = {int(steps): SamplerRecord.from_json(one) for steps, one in content[_BY_STEPS].items()}
        except (InputError, KeyError, TypeError, AttributeError, ValueError) as error:
            return Carried({}, f"learnt samplers of {name}: no start of learning, for they can't be read: {error}")
        found, lacking = dict[int, LearntSampler](), dict[str, list[int]]()
        for steps in counts:
            try:
                found[steps] = self._fitting(records.get(steps), steps, times, half_log_snr)
            except InputError as reason:
                lacking.setdefault(str(reason), []).append(steps)
        parts = [f"those of {_numbers(found)} steps are further starts of learning"] if found else []
        parts += [f"none for {_numbers(steps)} steps, since {reason}" for reason, steps in lacking.items()]
        return Carried(found, f"learnt samplers of {name}: {'; '.join(parts)}" if parts else "")

    def _fitting(self, record: SamplerRecord | None, steps: int, times: Array, half_log_snr: Array) -> LearntSampler:
        """Return the sampler of a record at the times of this search.  Raises InputError with the reason against it."""
        if record is None or record.steps != steps or len(record.sampler.times) != steps:
            raise InputError("it has none of so many")
        if record.learnt != self.learnt:
            raise InputError(f"it has learnt {record.learnt}, and this search learns {self.learnt}")
        if record.chosen != "learnt":
            raise InputError("the best solver and grid by hand were as good there")
        solver = record.sampler.solver
        if self.solvers and solver not in self.solvers:
            raise InputError(f"it is learnt over {solver}, and this search starts from {', '.join(self.solvers)}")
        sampler = self._at_our_times(record.sampler, times, half_log_snr)
        if steps > 1 and bool(find_solver(solver)(self.schedule, torch.tensor(sampler.times)).noise.any()):
            raise InputError(f"its solver {solver} adds noise")
        return sampler

    def _at_our_times(self, sampler: LearntSampler, times: Array, half_log_snr: Array) -> LearntSampler:
        """Return the sampler at equal half log-SNR, where alpha, sigma and so its coefficients are the same.

        Raises InputError where this search's noise schedule has no such times.
        """
        ours = np.arange(self.schedule.steps, dtype=np.float64)
        table = self.schedule.half_log_snr(ours)
        if np.array_equal(times, ours) and np.array_equal(half_log_snr, table):
            return sampler
        at = [np.interp(given, times, half_log_snr) for given in (sampler.times, sampler.network_times)]
        if at[0].min() < table[-1] or at[0].max() > table[0] or sampler.times[0] > times[-1]:
            raise InputError(
                f"its times have half log-SNRs from {at[0].min():.3g} to {at[0].max():.3g}, and this noise schedule "
                f"has {table[-1]:.3g} to {table[0]:.3g}"
            )
        moved, told = (tuple(map(float, self.schedule.time_of(one))) for one in at)
        return replace(sampler, times=moved, network_times=told)


def _numbers(steps: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(steps)))
