"""Part 5: the latency of every width under every engine, slicing in each call, and a compiled loop by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu.bench import Bench, Record, peak_mb, wait_for
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.noise import CachedNoise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.inference.cost import count_width, measure_latencies
from stepfront.trainers.inference.engine import PLAIN, Engine
from stepfront.trainers.networks.supernet import Supernet

TABLE = "latency of a network call"
STEPS = 10
_SCHEDULE = noise_schedule(DiffusionSettings())

Calls = Iterator[tuple[str, Callable[[], Callable[..., Tensor]]]]
"""Names of ways to run a network, and functions that make them ready."""


def run(bench: Bench, record: Record) -> None:
    """Measure a middle batch first with everything, then other batches with what starts at once."""
    supernet, _ = bench.supernet()
    supernet.to(bench.device)
    middle, others = (4, [1]) if bench.tiny else (128, [1, 16, 512])
    for width in (1.0, 0.5, 0.25, 0.75):
        _measure(bench, record, supernet, width, middle, [*_eager(bench, supernet, width, middle)])
    record.attempt("sampling, recorded", lambda: _sampling(bench, record, supernet, middle, "cuda_graphs"))
    for batch in others:
        for width in (1.0, 0.5, 0.25):
            _measure(bench, record, supernet, width, batch, [*_eager(bench, supernet, width, batch)])
    if not bench.compiles:
        return
    for width in (1.0, 0.5, 0.25, 0.75):
        _measure(bench, record, supernet, width, middle, [*_compiled(bench, supernet, width, middle)])
        if width == 1.0:
            record.attempt(
                "sampling, compiled", lambda: _sampling(bench, record, supernet, middle, "compiled_cuda_graphs")
            )
    _measure(bench, record, supernet, 1.0, 1, [*_compiled(bench, supernet, 1.0, 1)])


def _eager(bench: Bench, supernet: Supernet, width: float, batch: int) -> Calls:
    lower = "bfloat16" if bench.on_gpu else "float32"
    engines = [PLAIN, *([Engine(precision="bfloat16")] if bench.on_gpu else [])]
    engines.append(Engine(name="channels_last", precision=lower))
    yield "slicing in each call", lambda: partial(_sliced, supernet, width)
    engines += [Engine(name="cuda_graphs", precision=lower)] if bench.on_gpu else []
    for engine in engines:
        yield engine.label, partial(engine.run, supernet.subnet(width), bench.device, batch)


def _compiled(bench: Bench, supernet: Supernet, width: float, batch: int) -> Calls:
    lower = "bfloat16" if bench.on_gpu else "float32"
    for name in ("compiled", *(["compiled_cuda_graphs"] if bench.on_gpu else [])):
        engine = Engine(name=name, precision=lower)  # type: ignore[arg-type]
        yield engine.label, partial(engine.run, supernet.subnet(width), bench.device, batch)
    yield "by hand, torch.compile", lambda: _by_hand(bench, supernet, width)


def _sliced(supernet: Supernet, width: float, x: Tensor, t: Tensor) -> Tensor:
    prediction: Tensor = supernet(x, t, width)
    return prediction


def _by_hand(bench: Bench, supernet: Supernet, width: float) -> Callable[..., Tensor]:
    """Return the network as a user of PyTorch would compile it: channels-last, with its own CUDA graphs on a GPU."""
    dtype = torch.bfloat16 if bench.on_gpu else torch.float32
    network: nn.Module = supernet.subnet(width).to(dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    call = torch.compile(network, mode="reduce-overhead" if bench.on_gpu else "default", dynamic=False)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        eps: Tensor = call(x.to(dtype, memory_format=torch.channels_last), t)
        return eps.float()

    return predict


def _measure(bench: Bench, record: Record, supernet: Supernet, width: float, batch: int, calls: list[Any]) -> None:
    """Measure each call by itself, so that one that fails leaves the others alone."""
    settings, channels, side = supernet.settings, supernet.image_channels, supernet.resolution
    macs = count_width(settings, channels, side, width).macs
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, side, side, generator=generator).to(bench.device)
    t = torch.linspace(1, 999, batch).to(bench.device)
    with torch.inference_mode():
        expected = PLAIN.run(supernet.subnet(width), bench.device, batch)(x, t).double()

    def one(name: str, make: Callable[[], Callable[..., Tensor]]) -> None:
        peak_mb(bench.device)
        begin = time.perf_counter()
        network = make()
        with torch.inference_mode():
            found = network(x, t).double()
        wait_for(bench.device)
        start = time.perf_counter() - begin
        latency = measure_latencies([network], (channels, side, side), batch, bench.device, enough=2.0)[0].ms
        record.row(
            TABLE,
            width=width,
            batch=batch,
            engine=name,
            ms_per_call=float(f"{latency * batch:.4g}"),
            ms_per_image=float(f"{latency:.4g}"),
            tflops=float(f"{2e-9 * macs / latency:.4g}"),
            start_seconds=round(start, 1),
            peak_mb=peak_mb(bench.device),
            difference=float(f"{float((found - expected).norm() / expected.norm()):.2g}"),
        )

    for name, make in calls:
        record.attempt(f"{name}, width {width:g}, batch {batch}", partial(one, name, make))


def _sampling(bench: Bench, record: Record, supernet: Supernet, batch: int, engine_name: str) -> None:
    """Compare the sampler with a loop by hand: ten DDIM steps at full width, with the same kind of engine."""
    recorded = engine_name if bench.on_gpu else engine_name.replace("_cuda_graphs", "").replace("cuda_graphs", "plain")
    engine = Engine(name=recorded, precision="bfloat16" if bench.on_gpu else "float32")  # type: ignore[arg-type]
    shape = (supernet.image_channels, supernet.resolution, supernet.resolution)
    network = engine.run(supernet.subnet(1.0), bench.device, batch)
    sampler = Sampler({1.0: network}, _SCHEDULE, CachedNoise(0, shape), bench.device)
    times = tuple(map(float, time_grid(_SCHEDULE, "trailing", STEPS)))
    plan = Plan(times, (1.0,) * STEPS)
    alone = _by_hand(bench, supernet, 1.0) if engine.compiles else network
    by_hand = partial(_loop, alone, times, torch.from_numpy(sampler.noise.initial(range(batch))).to(bench.device))
    runs = {"stepfront": lambda: next(sampler.sample(plan, batch, batch)), "by hand": by_hand}
    seconds = {name: _median_seconds(run, bench.device) for name, run in runs.items()}
    made = {name: run().double() for name, run in runs.items()}
    record.row(
        "sampling against a loop by hand",
        engine=engine.label,
        loop="torch.compile" if engine.compiles else "the same network",
        batch=batch,
        stepfront_ms=float(f"{1e3 * seconds['stepfront']:.4g}"),
        by_hand_ms=float(f"{1e3 * seconds['by hand']:.4g}"),
        ratio=float(f"{seconds['by hand'] / seconds['stepfront']:.3g}"),
        difference=float(f"{float((made['stepfront'] - made['by hand']).norm() / made['by hand'].norm()):.2g}"),
    )


@torch.inference_mode()
def _loop(network: Callable[..., Tensor], times: tuple[float, ...], start: Tensor) -> Tensor:
    at = np.array(times)
    alpha, sigma = [*map(float, _SCHEDULE.alpha(at)), 1.0], [*map(float, _SCHEDULE.sigma(at)), 0.0]
    x = start
    for i, each in enumerate(times):
        eps = network(x, torch.full((len(x),), each, device=x.device))
        x = alpha[i + 1] * (x - sigma[i] * eps) / alpha[i] + sigma[i + 1] * eps
    return x


def _median_seconds(run: Callable[[], object], device: torch.device, repeats: int = 9) -> float:
    seconds = []
    for repeat in range(repeats + 3):
        wait_for(device)
        begin = time.perf_counter()
        run()
        wait_for(device)
        if repeat >= 3:
            seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))
