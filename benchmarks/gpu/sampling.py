"""Parts 4 and 8: images of the trained supernet, their FID for every solver and grid, and the largest batch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.bench import SPEED, SUPERNET, Bench, Record, peak_mb, rows_of, wait_for
from stepfront.files import read_json, write_json
from stepfront.plugins import SOLVERS
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData, to_float, to_pixels
from stepfront.trainers.data.image_grid import save_grid
from stepfront.trainers.diffusion.noise import CachedNoise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.inference.cost import largest_batch
from stepfront.trainers.inference.engine import Engine
from stepfront.trainers.metrics.features import FeatureNetwork, prepare_features
from stepfront.trainers.metrics.fid import Moments, Reference
from stepfront.trainers.networks.supernet import Supernet

STOCHASTIC = ("ddpm", "ddpm_large")
Judges = dict[str, tuple[FeatureNetwork, Reference]]


def run(bench: Bench, record: Record) -> None:
    """Score solvers and grids at full width, then widths at 10 and 20 steps."""
    data, (supernet, card) = bench.images(), bench.supernet()
    judges = find_judges(bench, record, data)
    images, batch = (32, 16) if bench.tiny else (2500, 500)
    floor = to_float(data.held_out_images[:images])
    record.row(
        "FID", solver="real held-out images", grid="", steps="", width="", images=len(floor), **score(judges, [floor])
    )
    sampler, engine = make_sampler(bench, record, supernet, card.diffusion, batch)
    record.note(f"images are sampled with the engine {engine.label}, in batches of {batch}")
    save_samples(bench, sampler, supernet)
    solvers = [name for name in SOLVERS.ours if name not in STOCHASTIC]
    grids = ("trailing",) if bench.tiny else ("trailing", "logsnr", "quadratic_open")
    cases = [(solver, grid, 10, 1.0) for grid in grids for solver in solvers]
    cases += [(solver, "trailing", 10, width) for width in supernet.widths[:-1] for solver in ("ddim", "dpmpp_2m")]
    cases += [(solver, grid, steps, 1.0) for steps in (5, 20) for grid in grids for solver in solvers]
    for solver, grid, steps, width in cases[:: 8 if bench.tiny else 1]:
        record.attempt(
            f"{solver} on {grid}",
            lambda case=(solver, grid, steps, width): _score_case(bench, record, sampler, judges, case, images, batch),
        )


def find_judges(bench: Bench, record: Record, data: ImageData) -> Judges:
    """Return the feature networks that can be had at once, with the statistics of the training images."""
    folder, judges = Path(bench.work) / SUPERNET, {}
    for file in Path(bench.features).iterdir() if bench.features else ():
        shutil.copy(file, folder / file.name)
        if file.suffix == ".json":  # another version of Pillow decodes the same files to slightly other pixels
            card = read_json(file, "card of a feature network")
            write_json(folder / file.name, card | {"fingerprint": data.fingerprint})
    for name in ("random", "degradations"):
        if name == "degradations" and not (folder / "degradations.json").exists():
            record.note("FID on degradations is left out: its network would be trained for minutes on the CPU")
            continue
        try:
            packed, reference = prepare_features(data, FeatureSettings(name=name), folder, bench.device)
            judges[name] = packed.unpack(bench.device), reference
        except Exception as error:
            record.note(f"FID on {name} is left out: {type(error).__name__}: {error}")
    return judges


def make_sampler(
    bench: Bench, record: Record, supernet: Supernet, diffusion: Any, batch: int
) -> tuple[Sampler, Engine]:
    """Return a sampler with the fastest engine that starts at once."""
    shape = (supernet.image_channels, supernet.resolution, supernet.resolution)
    engines = [Engine(precision="bfloat16" if bench.on_gpu else "float32")]
    if any("cuda_graphs" in row["loop"] for row in rows_of(Path(bench.work), "speed", SPEED)):  # they work here
        engines.insert(0, Engine(name="cuda_graphs", precision="bfloat16"))
    for engine in engines:
        subnets = {width: engine.run(supernet.subnet(width), bench.device, batch) for width in supernet.widths}
        sampler = Sampler(subnets, noise_schedule(diffusion), CachedNoise(0, shape, 2**31), bench.device)
        if record.attempt(f"sampling with {engine.label}", lambda sampler=sampler: _first_batch(sampler, batch)):
            return sampler, engine
    raise RuntimeError("no engine can sample")


def _first_batch(sampler: Sampler, batch: int) -> None:
    for width in sampler.denoisers:
        next(sampler.sample(_plan(sampler, "ddim", "trailing", 2, width), batch, batch))


def _plan(sampler: Sampler, solver: str, grid: str, steps: int, width: float) -> Plan:
    return Plan(tuple(map(float, time_grid(sampler.schedule, grid, steps))), (width,) * steps, solver)


def score(judges: Judges, batches: list[Tensor]) -> dict[str, float]:
    """Return the Frechet distance of images to the training images under each feature set."""
    scores = {}
    for name, (features, reference) in judges.items():
        rows = (features(part) for batch in batches for part in batch.split(500))
        scores[f"fid_{name}"] = float(f"{reference.distance(Moments.of(rows)):.4g}")
    return scores


def _score_case(
    bench: Bench,
    record: Record,
    sampler: Sampler,
    judges: Judges,
    case: tuple[str, str, int, float],
    images: int,
    batch: int,
) -> None:
    solver, grid, steps, width = case
    begin = time.perf_counter()
    batches = list(sampler.sample(_plan(sampler, solver, grid, steps, width), images, batch))
    wait_for(bench.device)
    seconds = time.perf_counter() - begin
    record.row(
        "FID",
        solver=solver,
        grid=grid,
        steps=steps,
        width=width,
        images=images,
        **score(judges, batches),
        sampling_seconds=round(seconds, 2),
        images_per_second=round(images / seconds),
    )


def save_samples(bench: Bench, sampler: Sampler, supernet: Supernet) -> None:
    """Draw 16 images per width from the same noise."""
    rows = []
    for width in reversed(supernet.widths):
        plan = _plan(sampler, "dpmpp_2m", "logsnr", 5 if bench.tiny else 20, width)
        rows.append(next(sampler.sample(plan, 16, 16)))
    save_grid(to_pixels(torch.cat(rows)), Path(bench.out) / "samples.png", columns=16)


def batches(bench: Bench, record: Record) -> None:
    """Find the largest batch as `evaluation.batch: auto` does, for a process that may have most of the memory."""
    supernet, _ = bench.supernet()
    shape = (supernet.image_channels, supernet.resolution, supernet.resolution)
    most, share = (8, 1.0) if bench.tiny and not bench.on_gpu else (8192, 0.9)
    for engine in (Engine(precision="bfloat16"), Engine()) if bench.on_gpu else (Engine(),):

        def one(engine: Engine = engine) -> None:
            begin = time.perf_counter()
            peak_mb(bench.device)
            network: Callable[..., Tensor] = engine.run(supernet.subnet(1.0), bench.device, 0)
            found = largest_batch(network, shape, most, bench.device, share)
            record.row(
                "largest batch",
                engine=engine.label,
                asked=most,
                share_of_memory=share,
                found=found,
                seconds=round(time.perf_counter() - begin, 1),
                peak_mb=peak_mb(bench.device),
            )

        record.attempt(f"the largest batch with {engine.label}", one)
