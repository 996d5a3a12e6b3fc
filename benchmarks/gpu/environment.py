"""Part 1: say which machine this is, and how fast its processor and memory are by themselves."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable

import numpy
import torch

from benchmarks.gpu.bench import Bench, Record, wait_for
from stepfront.trainers.devices import device_name
from stepfront.version import __version__


def run(bench: Bench, record: Record) -> None:
    """Write the versions, a matrix product's FLOP/s, a copy's bytes per second, and the time to read the images."""
    device = bench.device
    facts = {
        "device": device_name(device),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "numpy": numpy.__version__,
        "stepfront": __version__,
    }
    if bench.on_gpu:
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "memory, GiB": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
        }
    for name, value in facts.items():
        record.row("environment", fact=name, value=value)
    side = 256 if bench.tiny else 8192
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    seconds = _seconds(lambda: a @ b, device)
    record.row("environment", fact=f"bfloat16 product of side {side}, TFLOP/s", value=_short(2e-12 * side**3 / seconds))
    source = torch.randn(2**12 if bench.tiny else 2**29, device=device)
    target = torch.empty_like(source)
    seconds = _seconds(lambda: target.copy_(source), device)
    record.row("environment", fact="copy, GB/s read and written", value=_short(2e-9 * source.nbytes / seconds))
    begin = time.perf_counter()
    data = bench.images()
    record.row("environment", fact="seconds to decode the images", value=_short(time.perf_counter() - begin))
    record.row("environment", fact="training images", value=len(data.images))
    record.row("environment", fact="held-out images", value=len(data.held_out_images))


def _seconds(call: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    for _ in range(3):
        call()
    wait_for(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    wait_for(device)
    return (time.perf_counter() - begin) / repeats


def _short(value: float) -> float:
    return float(f"{value:.4g}")
