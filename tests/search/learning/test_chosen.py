"""Which sampler a search runs on: the learnt one only where it beats the best closed form by FID and distance."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from stepfront.search.learning import chosen
from stepfront.search.learning.chosen import SamplerToLearn
from stepfront.search.records.learnt_samplers import SamplerRecord
from stepfront.trainers.config import DiffusionSettings, SamplerSettings
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.learning_settings import LearningSettings
from stepfront.trainers.sampler_learning.result import TriedStart
from stepfront.trainers.sampler_learning.starts import EarlierStart

SCHEDULE = noise_schedule(DiffusionSettings())
HAND = (("ddim", "trailing"), ("dpmpp_2m", "quadratic"), ("unipc_2", "leading"), ("ddpm", "trailing"))
FIDS = {"ddim": 9.0, "dpmpp_2m": 4.0, "unipc_2": 6.0}
LEARNT = LearntSampler("unipc_2", (990.0, 400.0, 50.0), (990.0, 400.0, 50.0))
WIDTHS = (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("learnt_fid", "better", "expected"),
    [
        (3.0, True, "learnt"),
        (5.0, True, "closed form"),  # beats the form that it started from, not the best one
        (3.0, False, "closed form"),  # its held-out distance is not smaller
        (float("nan"), True, "closed form"),
    ],
)
def test_a_learnt_sampler_has_to_beat_the_best_closed_form(
    monkeypatch: pytest.MonkeyPatch, learnt_fid: float, better: bool, expected: str
) -> None:
    scored: list[str] = []
    asked: dict[str, Any] = {}

    def evaluate(plan: Plan, images: int, seed: int) -> Any:
        scored.append(plan.solver)
        hand = plan.times == tuple(time_grid(SCHEDULE, dict(HAND)[plan.solver], 3))
        return SimpleNamespace(fid=FIDS[plan.solver] if hand else learnt_fid)

    def learn(*args: Any, starts: Any, earlier: Any, **more: Any) -> Any:
        asked["earlier"] = [start.name for start in earlier]
        asked["starts"] = [(start.solver, start.grid) for start in starts]
        first = starts[0]
        return SimpleNamespace(
            sampler=LEARNT,
            start=first.sampler(),
            start_name=first.name,
            better=better,
            train=1.0,
            held_out=1.0,
            start_held_out=2.0,
            calls=9,
            gflops=5.0,
            seconds=1.0,
            taken="the sampler of digits",
            tried=(TriedStart(first.name, 0.5, 0.25), TriedStart("the sampler of digits", float("nan"), 0.125, True)),
        )

    monkeypatch.setattr(SamplerToLearn, "_evaluator", lambda self: evaluate)
    monkeypatch.setattr(chosen, "learn_sampler", learn)
    monkeypatch.setattr(SamplerToLearn, "_sampler", lambda self: SimpleNamespace(schedule=SCHEDULE))
    parts: Any = SimpleNamespace(threads=0, costs={1.0: SimpleNamespace(step_gflops=2.0, calls=1)})
    further = (EarlierStart("the sampler of digits", LEARNT),)
    record = SamplerToLearn(parts, WIDTHS, "solver", LearningSettings(starts=2), 10, HAND, earlier=further).run()
    assert asked["earlier"] == ["the sampler of digits"]
    assert record.taken == "the sampler of digits"
    assert [start["first"] for start in record.tried] == [0.5, None]
    assert record.carried == (
        "3x1.00 is learnt from the sampler of digits; distance before learning: the sampler of digits not finite, best "
        "by hand 0.5"
    )
    assert SamplerRecord.from_json(json.loads(json.dumps(record.to_json()))).tried == record.tried
    assert asked["starts"] == [("dpmpp_2m", "quadratic"), ("unipc_2", "leading")]  # by FID; ddpm adds noise
    assert scored == ["ddim", "dpmpp_2m", "unipc_2", "unipc_2"]
    assert record.chosen == expected
    assert record.sampler == (LEARNT if expected == "learnt" else record_of_the_best())
    assert record.start_fid == 4.0
    assert record.tflops == pytest.approx((5.0 + 4 * 10 * 3 * 2.0) / 1e3)  # four scores of 10 images at 3 steps
    assert record.calls == 9 + 4 * 10 * 3


def record_of_the_best() -> LearntSampler:
    times = tuple(map(float, time_grid(SCHEDULE, "quadratic", 3)))
    return LearntSampler("dpmpp_2m", times, times)


def test_the_best_closed_form_is_found_without_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        SamplerToLearn, "_evaluator", lambda self: lambda plan, *rest: SimpleNamespace(fid=FIDS[plan.solver])
    )
    monkeypatch.setattr(SamplerToLearn, "_sampler", lambda self: SimpleNamespace(schedule=SCHEDULE))
    parts: Any = SimpleNamespace(threads=0, costs={1.0: SimpleNamespace(step_gflops=2.0, calls=2)})
    record = SamplerToLearn(parts, WIDTHS, "closed_form", LearningSettings(), 10, HAND).run()
    assert record.sampler == record_of_the_best()
    assert (record.chosen, record.start_fid, record.chosen_fid) == ("closed form", 4.0, 4.0)
    assert (record.train, record.held_out, record.fid, record.distance) == (None,) * 4
    assert record.calls == 3 * 10 * 3 * 2  # three solvers that add no noise, two calls per step under guidance
    assert record.tflops == pytest.approx(3 * 10 * 3 * 2.0 / 1e3)
    assert SamplerRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"solver": "best"}, "closed_form"),
        ({"solver": "best", "times": "learnt"}, "network_times"),
        ({"solver": "learnt"}, "solver"),
        ({}, None),
    ],
)
def test_what_is_found_before_a_search_is_a_setting(given: dict[str, Any], found: str | None) -> None:
    assert SamplerSettings.model_validate(given).learnt == found
