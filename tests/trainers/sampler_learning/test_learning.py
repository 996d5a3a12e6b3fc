"""Learnt samplers against the best closed forms on the two Gaussians; equal seeds, interruptions and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stepfront.errors import InputError
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import time_grid
from stepfront.trainers.learning_settings import LearningSettings, Learnt
from stepfront.trainers.sampler_learning.descent import NoiseBall, begin
from stepfront.trainers.sampler_learning.learn import learn_sampler
from stepfront.trainers.sampler_learning.lesson import LearningProgress
from stepfront.trainers.sampler_learning.pairs import Pairs, PairSets, learning_seed
from stepfront.trainers.sampler_learning.parameters import Frame
from stepfront.trainers.sampler_learning.result import LearningResult
from stepfront.trainers.sampler_learning.starts import GRIDS, EarlierStart

SHORT = LearningSettings(
    pairs=24, stopping_pairs=8, held_out_pairs=8, iterations=30, batch=8, check_every=5, teacher_steps=20, starts=2
)


def learn(plane: Sampler, **given: object) -> LearningResult:
    return learn_sampler(plane, (1.0,) * 4, "solver", SHORT, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("solver", "learnt", "of_trailing", "of_best"),
    [
        ("ddim", "times", 0.70, 0.90),
        ("dpmpp_2m", "times", 0.45, 0.88),
        ("ddim", "network_times", 0.42, 0.50),
        ("ddim", "solver", 0.10, 0.13),
    ],
)
def test_learning_divides_the_error_of_the_trailing_and_of_the_best_hand_grid(
    plane: Sampler,
    golden_pairs: Callable[[int, int], Pairs],
    solver: str,
    learnt: Learnt,
    of_trailing: float,
    of_best: float,
) -> None:
    sets = PairSets(golden_pairs(1, 256), golden_pairs(2, 128), golden_pairs(7, 512))
    settings = LearningSettings(
        pairs=256,
        batch=64,
        iterations=240 if learnt == "solver" else 120,
        patience=1000,
        check_every=20,
        starts=3,
        least_gap=0.0,
        distance="squared",
        solvers=(solver,),
        teacher_steps=1000,
        learn_start=False,
        rate_times=0.05,
        rate_network_times=3.0,
        rate_coefficients=0.005,
    )
    result = learn_sampler(plane, (1.0,) * 5, learnt, settings, pairs=sets)
    grids = {grid: tuple(map(float, time_grid(plane.schedule, grid, 5))) for grid in GRIDS}
    hand = {grid: error_of(plane, Plan(times, (1.0,) * 5, solver), sets.held_out) for grid, times in grids.items()}
    carried = Plan(result.sampler.times, (1.0,) * 5, solver, result.sampler)
    found = error_of(plane, carried, sets.held_out)
    assert found <= of_trailing * hand["trailing"]
    assert found <= of_best * min(hand.values())
    assert found == pytest.approx((2 * result.held_out) ** 0.5, rel=1e-4)  # two values per image, float32 times
    assert result.better
    assert result.held_out_error > 0


def error_of(plane: Sampler, plan: Plan, pairs: Pairs) -> float:
    """Return the root of the mean squared distance to the teacher's images, by the sampler that is deployed."""
    prepared, state = plane.prepare(plan), plane.start(range(1))
    state = type(state)(pairs.noise)
    for position in range(5):
        state = plane.step(state, prepared, position, range(len(pairs)))
    return float((state.x - pairs.target).square().sum(1).mean().sqrt())


def test_equal_seeds_give_equal_samplers_and_an_interruption_changes_nothing(plane: Sampler, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    checks: list[LearningProgress] = []

    def interrupt(progress: LearningProgress) -> None:
        checks.extend([progress] if progress.phase.startswith("learning") else [])
        if len(checks) > 3:
            raise StopError

    complete = learn(plane)
    with pytest.raises(StopError):
        learn(plane, state=tmp_path, on_progress=interrupt)
    assert list(tmp_path.iterdir())
    resumed = learn(plane, state=tmp_path)
    assert resumed.sampler == complete.sampler
    assert str(resumed.history) == str(complete.history)  # its first distance is NaN
    assert LearningResult.from_json(complete.to_json()).sampler == complete.sampler
    other = learn_sampler(plane, (1.0,) * 4, "solver", SHORT.model_copy(update={"seed": 1}))
    assert other.sampler != complete.sampler


def test_a_sampler_learnt_before_is_learnt_from_where_it_is_better(plane: Sampler) -> None:
    cold = learn(plane)
    warm = learn(plane, earlier=[EarlierStart("the sampler of before", cold.sampler)])
    *by_hand, before = warm.tried
    assert tuple(by_hand) == cold.tried
    assert before.first < min(start.first for start in by_hand)
    # It begins where the cold learning ended: times, offsets and corrections are the same again.
    assert before.first == pytest.approx(min(check.stopping for check in cold.history), rel=1e-3)
    assert warm.taken == before.name
    assert min(start.least for start in warm.tried) == before.least
    assert warm.start_name == cold.start_name  # what it has to beat stays the best closed form
    assert warm.held_out < cold.held_out
    assert LearningResult.from_json(warm.to_json()).tried == warm.tried


@pytest.mark.parametrize("correction", [0.5, 1e30, 1e300])
def test_a_poor_sampler_of_before_changes_nothing(plane: Sampler, correction: float) -> None:
    table = tuple((0.0,) * i + (correction,) + (0.0,) * (3 - i) for i in range(4))
    poor = LearntSampler("ddim", (990.0, 980.0, 970.0, 960.0), (989.0, 979.0, 969.0, 959.0), None, table)
    cold, warm = learn(plane), learn(plane, earlier=[EarlierStart("poor", poor)])
    assert (warm.sampler, warm.taken, warm.held_out) == (cold.sampler, cold.taken, cold.held_out)
    assert str(warm.history) == str(cold.history)
    assert not warm.tried[-1].least <= min(start.least for start in cold.tried)  # NaN where it diverged


def test_progress_rises_and_the_calls_are_counted(plane: Sampler) -> None:
    seen: list[LearningProgress] = []
    result = learn(plane, on_progress=seen.append, call_gflops={1.0: 2.0})
    shares = [progress.done for progress in seen]
    assert shares == sorted(shares)
    assert shares[-1] > 0.8
    assert result.calls > 40 * 20  # the teacher's
    assert result.gflops == pytest.approx(2.0 * result.calls)


def test_what_is_not_better_than_its_start_is_refused_with_figures(plane: Sampler) -> None:
    # The teacher is the student's own start, so that nothing can be better.
    settings = SHORT.model_copy(
        update={"teacher_steps": 4, "teacher_solver": "ddim", "distance": "squared", "solvers": ("ddim",), "starts": 1}
    )
    result = learn_sampler(plane, (1.0,) * 4, "times", settings)
    assert result.start_held_out == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(InputError, match=r"not better than the closed form: held-out distance .* of ddim, trailing"):
        result.accepted()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher_steps": 3}, "a teacher of 3 steps can't teach a sampler of 4"),
        ({"solvers": ("ddpm",)}, "the solver ddpm adds noise"),
        ({"teacher_solver": "ddpm"}, "the teacher's solver ddpm adds noise"),
        ({"least_gap": 300.0}, "4 steps at least 300 apart do not fit"),
        ({"distance": "features"}, "needs a feature network"),
        ({"rate_coefficients": 1e200}, "learning diverged at iteration"),
    ],
)
def test_bad_input_is_one_line(plane: Sampler, changed: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        learn_sampler(plane, (1.0,) * 4, "solver", SHORT.model_copy(update=changed))
    assert "\n" not in str(raised.value)


def test_noise_of_learning_is_not_that_of_scores(plane: Sampler) -> None:
    seeds = {learning_seed(seed) for seed in range(50)}
    assert len(seeds) == 50
    assert min(seeds) > 2**61
    assert torch.isfinite(plane.noise.on(plane.device, plane.dtype, range(1))).all()
    # A generator takes them: the key of Philox has 64 bits.
    assert max(seeds) < 2**64


def test_the_noise_stays_in_its_ball(plane: Sampler) -> None:
    settings = SHORT.model_copy(update={"ball": 0.01, "rate_noise": 100.0})
    frame = Frame("ddim", plane.schedule, 1.0, "times")
    descent = begin("start", frame, LearntSampler("ddim", (900.0, 300.0), (900.0, 300.0)), settings)
    noise, rows = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.arange(8)
    for _ in range(3):
        ball = NoiseBall(settings, noise, rows, descent, settings.pairs)
        ball.noise.square().sum().backward()
        ball.move()
    assert descent.noise_moved is not None
    moved = descent.noise_moved[:8]
    torch.testing.assert_close(moved.norm(dim=1), 0.01 * noise.norm(dim=1))
    assert ((moved * noise).sum(dim=1) < 0).all()  # towards what the gradient asks for
