"""Part 6: learn a sampler on the trained supernet, and score it beside the closed form that it started from."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.bench import Bench, Record
from benchmarks.gpu.sampling import find_judges, make_sampler, score
from stepfront.trainers.diffusion.noise import CachedNoise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.inference.engine import PLAIN
from stepfront.trainers.learning_settings import LearningSettings
from stepfront.trainers.sampler_learning.learn import learn_sampler
from stepfront.trainers.sampler_learning.result import LearningResult


def run(bench: Bench, record: Record) -> None:
    """Learn samplers of 5 and 10 steps at full width."""
    for steps in (2,) if bench.tiny else (5, 10):
        record.attempt(f"learning a sampler of {steps} steps", lambda steps=steps: _learn(bench, record, steps))


def _learn(bench: Bench, record: Record, steps: int) -> None:
    data, (supernet, card) = bench.images(), bench.supernet()
    shape, widths = (data.channels, data.resolution, data.resolution), (1.0,) * steps
    network = PLAIN.run(supernet.subnet(1.0), bench.device, 0)
    sampler = Sampler({1.0: network}, noise_schedule(card.diffusion), CachedNoise(0, shape), bench.device)
    # A GPU computes small batches no sooner than large ones: fewer iterations on more pairs.
    sizes: dict[str, Any] = {"pairs": 512, "stopping_pairs": 128, "held_out_pairs": 256, "batch": 256}
    more: dict[str, Any] = {"iterations": 100, "starts": 2, "teacher_steps": 50, "memory_mb": 65_536.0}
    if bench.tiny:
        sizes, more = {"pairs": 8, "stopping_pairs": 4, "held_out_pairs": 4, "batch": 4}, {"teacher_steps": 6}
        more |= {"iterations": 4, "check_every": 2, "starts": 1, "solvers": ("ddim",)}
    macs = count_width(supernet.settings, data.channels, data.resolution, 1.0).macs
    result = learn_sampler(sampler, widths, settings=LearningSettings(**sizes, **more), call_gflops={1.0: 2e-9 * macs})
    record.row(
        "learnt sampler",
        steps=steps,
        start=result.start_name,
        held_out_distance=float(f"{result.held_out:.4g}"),
        start_held_out_distance=float(f"{result.start_held_out:.4g}"),
        better=result.better,
        iterations=result.iterations,
        seconds=round(result.seconds, 1),
        gflops=float(f"{result.gflops:.4g}"),
    )
    _score(bench, record, result, widths)


def _show(progress: Any) -> None:
    left = f"{progress.remaining:.0f} s left"
    print(f"{progress.seconds:6.1f} s  {progress.phase}: {progress.done:.0%}, {left}", flush=True)


def _score(bench: Bench, record: Record, result: LearningResult, widths: tuple[float, ...]) -> None:
    """Score images of the learnt sampler and of its start, from the same noise as all other scores."""
    supernet, card = bench.supernet()
    images, batch = (32, 16) if bench.tiny else (2500, 500)
    judges = find_judges(bench, record, bench.images())
    sampler, _ = make_sampler(bench, record, supernet, card.diffusion, batch)
    plans = {
        name: Plan(tuple(learnt.times), widths, learnt.solver, learnt=learnt)
        for name, learnt in (("learnt", result.sampler), (f"its start: {result.start_name}", result.start))
    }
    for solver in ("ddim", "dpmpp_2m", "unipc_2", "ipndm_3"):
        times = time_grid(sampler.schedule, "quadratic_open", len(widths))
        plans[f"{solver}, quadratic_open grid"] = Plan(tuple(map(float, times)), widths, solver)
    for name, plan in plans.items():
        batches = list(sampler.sample(plan, images, batch))
        scores = score(judges, batches)
        record.row("FID of the learnt sampler", sampler=name, steps=len(widths), images=images, **scores)
