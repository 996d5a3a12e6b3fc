"""Measure the speed of networks and sampling, as ratios of runs in turns, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from benchmarks.slicing import slicing_network
from stepfront.search.records.run_directory import find_supernet
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.noise import CachedNoise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.inference.engine import PLAIN, Engine
from stepfront.trainers.inference.engine_choice import Bench, choose_engine
from stepfront.trainers.metrics.fid import Moments, Reference
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet

DDSM = NetworkSettings(base=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), skips="prefix")
"""The U-Net of DDSM's CIFAR-10 experiments."""

MIX = (0.5, 0.25, 0.25, 0.75, 1.0)
"""Widths of the mixed plans, in equal shares."""

CALLS = 1e6
"""Network calls of a worker for which its engine is chosen: 100 plans of 500 images and 20 steps."""

SCHEDULE = noise_schedule(DiffusionSettings())
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Row:
    """A measured figure, with its target and how it was measured."""

    name: str
    figure: float
    target: str
    met: bool
    details: str


def in_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each, called in turns after one round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(spent) for name, spent in seconds.items()}


def at_least(name: str, figure: float, target: float, details: str) -> Row:
    return Row(name, figure, f"at least {target:g}", figure >= target, details)


def at_most(name: str, figure: float, target: float, details: str) -> Row:
    return Row(name, figure, f"at most {target:g}", figure <= target, details)


def digits(run: Path) -> Supernet:
    return load_supernet(find_supernet(run))[0]


@cache
def ddsm() -> Supernet:
    """Return DDSM's CIFAR-10 network with random weights, no layer zero; speed does not depend on the values."""
    torch.manual_seed(0)
    supernet = Supernet(DDSM, 3, 32).eval()
    for parameter in supernet.widest.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return supernet.requires_grad_(False)


def plan_of(widths: tuple[float, ...]) -> Plan:
    return Plan(tuple(map(float, time_grid(SCHEDULE, "trailing", len(widths)))), widths)


def described(plan: Plan) -> str:
    """Return the plan in words where it repeats `MIX`, else its runs."""
    rounds = len(plan.widths) // len(MIX)
    return f"mixed plan, {len(plan.widths)} steps" if plan.widths == MIX * rounds else plan.runs


def sampler(supernet: Supernet, engine: Engine, batch: int) -> Sampler:
    subnets = {width: engine.run(supernet.subnet(width), CPU, batch) for width in supernet.widths}
    shape = (supernet.image_channels, supernet.resolution, supernet.resolution)
    return Sampler(subnets, SCHEDULE, CachedNoise(0, shape), CPU)


def _batch(ours: Sampler, plan: Plan, batch: int) -> Tensor:
    return next(ours.sample(plan, batch, batch))


@cache
def fastest(supernet: Supernet, batch: int) -> tuple[Engine, str]:
    """Return the engine that a long search would get, and the measurements of each as a text."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, supernet.image_channels, supernet.resolution, supernet.resolution, generator=generator)
    bench = Bench(supernet.subnet, supernet.widths, [(x, torch.full((batch,), 500.0))], CPU)
    chosen, measured = choose_engine(bench, "auto", "auto", CALLS)
    told = [
        f"{one.engine.label} {sum(one.latency_ms) / sum(measured[0].latency_ms):.2f}"
        for one in measured[1:]
        if one.latency_ms
    ]
    return chosen.engine, f"engine {chosen.engine.label} (of plain's time: {', '.join(told)})"


# --- rows -------------------------------------------------------------------------------------------------------------


def bare_loop(run: Path, quick: bool) -> list[Row]:
    """Compare our sampler with a loop written by hand."""
    rows = []
    cases = [("digits, batch 256", digits(run), 256, 1 if quick else 4, 5 if quick else 15)]
    if not quick:
        cases.append(("DDSM's CIFAR-10 network, batch 16", ddsm(), 16, 1, 5))
    for name, supernet, batch, rounds, repeats in cases:
        plan = plan_of(MIX * rounds)
        ours = sampler(supernet, PLAIN, batch)
        nets = {width: supernet.subnet(width) for width in supernet.widths}
        start = torch.from_numpy(ours.noise.initial(range(batch)))
        alpha, sigma = (
            [*map(float, f(np.array(plan.times))), last] for f, last in ((SCHEDULE.alpha, 1.0), (SCHEDULE.sigma, 0.0))
        )
        times = [torch.full((batch,), t) for t in plan.times]

        @torch.inference_mode()
        def bare(
            x: Tensor = start,
            nets: dict[float, nn.Module] = nets,
            plan: Plan = plan,
            alpha: list[float] = alpha,
            sigma: list[float] = sigma,
            times: list[Tensor] = times,
        ) -> Tensor:
            for i, width in enumerate(plan.widths):
                eps = nets[width](x, times[i])
                x = alpha[i + 1] * (x - sigma[i] * eps) / alpha[i] + sigma[i + 1] * eps
            return x

        sampled = partial(_batch, ours, plan, batch)
        error = float((bare() - sampled()).abs().max())
        seconds = in_turns({"bare": bare, "ours": sampled}, repeats)
        details = (
            f"{described(plan)}; {1000 * seconds['ours']:.0f} ms against {1000 * seconds['bare']:.0f} ms per batch; "
        )
        details += f"images equal to {error:.1g}"
        rows.append(at_least(f"sampling against a bare loop, {name}", seconds["bare"] / seconds["ours"], 0.95, details))
    return rows


def slicing(run: Path, quick: bool) -> list[Row]:
    """Compare materialised subnets with slicing in every call, with the engine that a search would choose.

    Where the processor computes in bfloat16, which a user can ask for, that is measured too.
    """
    supernet, batch = ddsm(), 16
    plan = plan_of((0.25, 0.5) if quick else MIX)
    engine, told = (PLAIN, "engine plain (not measured)") if quick else fastest(supernet, batch)
    lower = Engine(precision="bfloat16")  # plain: compiling it takes longer than everything else here
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()  # there is no public function
    engines = {"ours": engine} | ({"lower": lower} if native else {})
    samplers = {name: sampler(supernet, each, batch) for name, each in engines.items()}
    subnets = {w: slicing_network(supernet, w) for w in supernet.widths}
    samplers["sliced"] = Sampler(subnets, SCHEDULE, samplers["ours"].noise, CPU)
    runs: dict[str, Callable[[], object]] = {name: partial(_batch, s, plan, batch) for name, s in samplers.items()}
    a, b = torch.randn(2, 2048, 2048)
    seconds = in_turns(runs | {"product": lambda: a @ b}, 3 if quick else 7)
    images = {name: _batch(each, plan, batch) for name, each in samplers.items()}
    error = float((images["ours"] - images["sliced"]).abs().max() / images["sliced"].abs().max())
    shape = supernet.settings, supernet.image_channels, supernet.resolution
    flops = 2e-9 * batch * sum(count_width(*shape, width).macs for width in plan.widths)
    details = f"{described(plan)}, batch {batch}; {seconds['ours']:.2f} s against {seconds['sliced']:.2f} s; {told}; "
    details += f"images equal to {error:.1g}; {flops / seconds['ours']:.0f} GFLOP/s, where a product of two "
    details += f"matrices of 2,048 x 2,048 runs at {2e-9 * 2048**3 / seconds['product']:.0f}"
    if native:
        details += f"; {lower.label}, on request, {seconds['sliced'] / seconds['lower']:.2f} times as fast as slicing"
    return [at_least("materialised against sliced in each call", seconds["sliced"] / seconds["ours"], 1.15, details)]


def time_and_flops(run: Path, quick: bool) -> list[Row]:
    """Compare the share of time that a narrow plan saves with the share of FLOPs."""
    rows = []
    cases = [("digits, batch 256", digits(run), 256, 2, 5 if quick else 15)]
    if not quick:
        cases.append(("DDSM's CIFAR-10 network, batch 16", ddsm(), 16, 1, 5))
    for name, supernet, batch, rounds, repeats in cases:
        engine, told = fastest(supernet, batch)
        ours = sampler(supernet, engine, batch)
        shape = supernet.settings, supernet.image_channels, supernet.resolution
        macs = {width: count_width(*shape, width).macs for width in supernet.widths}
        full = plan_of((1.0,) * len(MIX) * rounds)
        plans = {"full": full, "mixed": plan_of(MIX * rounds), "half": plan_of((0.5,) * len(MIX) * rounds)}
        seconds = in_turns({key: partial(_batch, ours, plan, batch) for key, plan in plans.items()}, repeats)
        for key in ("mixed", "half"):
            spent = sum(macs[w] for w in plans[key].widths) / sum(macs[w] for w in full.widths)
            saved = (1 - seconds[key] / seconds["full"]) / (1 - spent)
            details = f"{described(plans[key])}: {1 - seconds[key] / seconds['full']:.0%} of the time saved, "
            details += f"{1 - spent:.0%} of the FLOPs; {told}"
            rows.append(at_least(f"time saved to FLOPs saved, {name}", saved, 0.8, details))
    return rows


def distance(run: Path, quick: bool) -> list[Row]:
    """Time the Frechet distance alone at 2,048 dimensions."""
    rows, dimensions, rng = [], 2048, np.random.default_rng(0)
    real = rng.standard_normal((4096, dimensions)) * np.linspace(0.1, 2, dimensions)
    reference = Reference(real.mean(0), np.cov(real.T), len(real), "", "", "")
    assert reference.triangle.size
    for count in (512,) if quick else (512, 1024, 4096):
        made = rng.standard_normal((count, dimensions)) * 1.1
        moments = Moments.of(made[i : i + 256] for i in range(0, count, 256))
        with threadpool_limits(2):  # the target speaks of two cores
            seconds = in_turns({"": lambda moments=moments: reference.distance(moments)}, 3 if quick else 9)[""]
        details = f"{dimensions} dimensions, two threads"
        rows.append(at_most(f"Frechet distance of {count:,} images, ms", 1000 * seconds, 50, details))
    return rows
