"""Learnt samplers: what they hold, what a plan runs of them, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import SKIP, Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule

SCHEDULE = noise_schedule(DiffusionSettings())
TIMES = (999.0, 640.1, 0.1 + 0.2)
ZEROS = ((0.0,) * 3,) * 3
LEARNT = LearntSampler("dpmpp_2m", TIMES, (990.0, 640.1, 1 / 3), ZEROS, ((0.5, 0, 0), (0, 0, 0), (-0.1, 0, 0.2)))


def plan_of(learnt: LearntSampler, width: float = 1.0) -> Plan:
    return Plan(learnt.times, (width,) * len(learnt.times), learnt.solver, learnt)


def images(plan: Plan, told: list[float] | None = None) -> Tensor:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        if told is not None:
            told.append(float(t[0]))
        return x * 0.5 + t[:, None] / 1000

    return next(Sampler({1.0: denoise}, SCHEDULE, Noise(0, (3,)), torch.device("cpu")).sample(plan, 5, 5))


def test_json_keeps_every_bit_and_the_digest_covers_every_number() -> None:
    again = LearntSampler.from_json(json.loads(json.dumps(LEARNT.to_json())))
    assert again == LEARNT
    assert again.digest == LEARNT.digest
    others = [
        replace(LEARNT, solver="ddim"),
        replace(LEARNT, times=(*TIMES[:2], 0.3)),
        replace(LEARNT, network_times=TIMES),
        replace(LEARNT, states=None),
        replace(LEARNT, clean=ZEROS),
    ]
    assert len({LEARNT.digest, *(other.digest for other in others)}) == 6


def test_no_and_zero_corrections_are_the_solver_itself_to_the_bit() -> None:
    plain = images(Plan(TIMES, (1.0,) * 3, "dpmpp_2m"))
    for corrections in (None, ZEROS):
        assert torch.equal(images(plan_of(LearntSampler("dpmpp_2m", TIMES, TIMES, corrections, corrections))), plain)


@pytest.mark.parametrize("times", [(1000.5, 400.0, 3.0), (999.0, 400.0, -0.5)])
def test_times_outside_the_schedule_are_refused(times: tuple[float, ...]) -> None:
    for learnt in (LearntSampler("ddim", times, TIMES), LearntSampler("ddim", TIMES, times)):
        with pytest.raises(InputError, match=r"the plan 3x1.00 has the time \S+, outside the schedule's 999 to 0"):
            images(plan_of(learnt))


def test_corrections_are_added_and_the_network_is_told_its_own_times() -> None:
    told: list[float] = []
    corrected = images(plan_of(LEARNT), told)
    assert told == pytest.approx(LEARNT.network_times)
    first = images(plan_of(replace(LEARNT, clean=None)))
    assert not torch.equal(corrected, first)
    # By hand: the last step adds -0.1 of the first clean image and 0.2 of the last one.
    run = Sampler({1.0: lambda x, t: x}, SCHEDULE, Noise(0, (3,)), torch.device("cpu")).prepare(plan_of(LEARNT))
    assert [j for j, _ in run.steps[2].clean] == [2, 0]
    assert run.reads[2].clean == (0,)


def test_prefix_keys_cover_all_that_was_learnt() -> None:
    sampler = Sampler({1.0: lambda x, t: x}, SCHEDULE, Noise(0, (3,)), torch.device("cpu"))
    variants = [
        LEARNT,
        replace(LEARNT, network_times=TIMES),
        replace(LEARNT, clean=ZEROS),
        replace(LEARNT, states=((0.1, 0, 0), *ZEROS[1:])),
    ]
    assert len({sampler.prepare(plan_of(learnt)).prefix_key(1) for learnt in variants}) == len(variants)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": (1.0, 2.0, 3.0)}, "times must decrease"),
        ({"network_times": TIMES[:2]}, "3 times and 2 network times"),
        ({"network_times": (float("nan"), 1.0, 0.0)}, "times must be finite"),
        ({"states": ZEROS[:2]}, "states must be a table of 3 x 3"),
        ({"clean": ((0, 1, 0), *ZEROS[1:])}, "clean must be zero above the diagonal"),
        ({"clean": ((float("inf"), 0, 0), *ZEROS[1:])}, "clean must be finite"),
    ],
)
def test_a_sampler_that_can_not_run_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(LEARNT, **change)


def test_what_is_no_sampler_is_refused() -> None:
    with pytest.raises(InputError, match=r"not a learnt sampler \(KeyError: 'times'\)"):
        LearntSampler.from_json({"solver": "ddim"})


def test_a_plan_must_fit_its_sampler() -> None:
    with pytest.raises(InputError, match="a plan of 2 steps on a sampler learnt for 3; learn one for 2 steps"):
        Plan(TIMES[:2], (1.0,) * 2, "dpmpp_2m", LEARNT)
    with pytest.raises(InputError, match="own times and solver"):
        Plan(TIMES, (1.0,) * 3, "ddim", LEARNT)
    with pytest.raises(InputError, match="can't skip steps"):
        Plan(TIMES, (1.0, SKIP, 1.0), "dpmpp_2m", LEARNT)
