"""Count and measure once per search what decoding an image of latents costs, apart from what the network costs."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import ray
import torch

from stepfront.files import read_json, write_json
from stepfront.search.execution.placement import remote_options
from stepfront.search.problem.evaluator_parts import threads_per_worker, worker_device
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.run_directory import COSTS_FILE
from stepfront.trainers.data import to_float
from stepfront.trainers.devices import device_name, pick_device
from stepfront.trainers.validation import Settings, validate

_RUNS, _WARM_UP = 5, 1


class DecoderCost(Settings):
    """Cost of decoding one image; the latency is that of a worker's device, in ms."""

    macs: int
    parameters: int
    latency_ms: float
    batch: int
    device: str

    @property
    def gflops(self) -> float:
        """The FLOPs of one image, in 1e9."""
        return 2e-9 * self.macs


def read_decoder_cost(directory: Path) -> DecoderCost | None:
    """Return what a search has measured; None where there is nothing, as in searches on pixels."""
    path = directory / COSTS_FILE
    content = read_json(path, "table of costs").get("decoder") if path.exists() else None
    return None if content is None else validate(DecoderCost, content)


def ensure_decoder_cost(problem: SearchProblem, directory: Path) -> None:
    """Measure the decoder on a worker and store its cost beside those of the widths, unless that is there already."""
    if problem.decoder is None or read_decoder_cost(directory) is not None:
        return
    content = read_json(directory / COSTS_FILE, "table of costs")
    write_json(directory / COSTS_FILE, content | {"decoder": _measure(problem).model_dump(mode="json")})


def _measure(problem: SearchProblem) -> DecoderCost:
    settings, packed = problem.settings, problem.decoder
    assert packed is not None
    held_out = problem.data.held_out_images

    @ray.remote(**remote_options(settings.workers))
    def measure(z: np.ndarray) -> tuple[float, str]:
        torch.set_num_threads(threads_per_worker(settings))
        device = pick_device(worker_device(settings))
        decoder, latents = packed.unpack(device), torch.from_numpy(z.copy()).to(device)
        seconds = []
        for _ in range(_RUNS + _WARM_UP):
            begin = time.perf_counter()
            decoder(latents).sum().item()  # waits for the device
            seconds.append(time.perf_counter() - begin)
        return 1000 * statistics.median(seconds[_WARM_UP:]) / len(z), device_name(device)

    rows = np.arange(packed.block) % len(held_out)
    latency, device = ray.get(measure.remote(to_float(problem.data.clean_held_out(rows)).numpy()))
    parameters = sum(array.size for array in packed.weights.values())
    return DecoderCost(macs=packed.macs, parameters=parameters, latency_ms=latency, batch=len(rows), device=device)
