"""Train a plain network of the same FLOPs in a loop that uses nothing of stepfront's training."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.bench import Bench, Record, peak_mb, wait_for
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.networks.families import build_backbone


def measure_plain_loop(bench: Bench, record: Record, compiled: bool) -> None:
    """Measure the loop on a network of about the FLOPs that a sandwich step spends in the mean."""
    data = bench.images()
    base, macs = _same_flops(bench, data)
    settings = bench.network.model_copy(update={"base": base})
    begin = time.perf_counter()
    network = build_backbone(settings, data.channels, data.resolution, 1.0).to(bench.device)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    step = _Step(network, bench, data, compiled)
    peak_mb(bench.device)
    for _ in range(3):
        step()
    wait_for(bench.device)
    first, steps = time.perf_counter(), 0
    while time.perf_counter() - first < bench.measuring_seconds:
        step()
        steps += 1
        if steps % 4 == 0:
            wait_for(bench.device)
    wait_for(bench.device)
    rate = steps / (time.perf_counter() - first)
    loop = f"by hand, {'compiled' if compiled else 'channels_last'}, width 1 alone, base {base}"
    record.speed(loop, rate, 3 * 2e-12 * macs * bench.batch, first - begin, bench.device)


def _same_flops(bench: Bench, data: ImageData) -> tuple[int, int]:
    """Return the base, a multiple of 8, whose network at width 1 is nearest to the mean sandwich; and its MACs."""
    settings = bench.network
    macs = [count_width(settings, data.channels, data.resolution, width).macs for width in settings.widths]
    wanted = macs[-1] + macs[0] + sum(macs[1:-1]) / max(1, len(macs) - 2)
    bases = range(8, 4 * settings.base + 1, 8)
    plain = {
        base: count_width(settings.model_copy(update={"base": base}), data.channels, data.resolution, 1.0).macs
        for base in bases
        if settings.base <= base <= 2 * settings.base
    }
    base = min(plain, key=lambda each: abs(plain[each] - wanted))
    return base, plain[base]


class _Step:
    """One training step: images, times and noise are drawn on the device; bfloat16 where it is a GPU."""

    def __init__(self, network: nn.Module, bench: Bench, data: ImageData, compiled: bool) -> None:
        self._network, self._bench = network, bench
        self._call = torch.compile(network, dynamic=False) if compiled else network
        self._optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, fused=bench.on_gpu)
        self._images = to_float(data.images[:4096]).to(bench.device)
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        self._alpha_bar = torch.cumprod(1 - betas, 0).float().to(bench.device)

    def __call__(self) -> None:
        device, batch = self._bench.device, self._bench.batch
        x0 = self._images[torch.randint(len(self._images), (batch,), device=device)]
        t, eps = torch.randint(1000, (batch,), device=device), torch.randn_like(x0)
        level = self._alpha_bar[t, None, None, None]
        x: Tensor = (level.sqrt() * x0 + (1 - level).sqrt() * eps).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._bench.on_gpu):
            predicted = self._call(x, t)
        self._optimizer.zero_grad(set_to_none=True)
        F.mse_loss(predicted.float(), eps).backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimizer.step()
