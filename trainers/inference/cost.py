"""Compute what a width and a plan cost: multiply-accumulates, parameters and measured latency.

MACs are counted by running the network: convolutions, linear maps and both products of attention.  FLOPs are 2 x MACs.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stepfront.errors import InputError, first_line
from stepfront.plugins import FAMILIES
from stepfront.trainers.diffusion.plan import SKIP, Plan
from stepfront.trainers.diffusion.types import Network
from stepfront.trainers.inference.engine import PLAIN, Engine
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.deep_features import splits
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.validation import Settings
from stepfront.trainers.variant import Variant

MOST_SPREAD = 0.2
"""Spread of a latency above which it is measured again, and doubted in the end; an idle machine stays below 0.05."""


class Latency(NamedTuple):
    """A latency: the median in ms per image, and the distance of the quartiles of its runs as a share of it."""

    ms: float
    spread: float


class DepthCost(Settings):
    """Cost of one network call at a width and at another depth than the full one, per image.

    Inner steps share their weights, so `parameters` may be those of full depth.  `latency_spread` is as in WidthCost.
    """

    depth: int
    macs: int
    parameters: int
    latency_ms: float | None = None
    latency_spread: float | None = None


class WidthCost(Settings):
    """Cost of one network call at one width, per image.

    `engine` is how the network ran when its latency was measured, and `latency_spread` how far its runs differed, as a
    share of the latency.  Other latencies have spreads of their own.  `calls` is the number of calls per step: two
    under guidance.  `reuse_macs` and `reuse_latency_ms` are of a call that reuses deep features; None where the network
    can't, or was not measured so.  `keep_latency_ms` is of a full call that hands out its features to the next step,
    where the engine runs it unlike other full calls (CUDA graphs); None where it takes as long.  `shallower` has the
    cost at each depth other than the full one.
    """

    width: float
    macs: int
    parameters: int
    latency_ms: float | None = None
    latency_spread: float | None = None
    batch: int | None = None
    device: str | None = None
    engine: Engine = PLAIN
    calls: int = 1
    reuse_macs: int | None = None
    reuse_latency_ms: float | None = None
    reuse_latency_spread: float | None = None
    keep_latency_ms: float | None = None
    keep_latency_spread: float | None = None
    shallower: tuple[DepthCost, ...] = ()

    @property
    def spreads(self) -> dict[str, float]:
        """The spread of each latency that was measured, by what was called, such as `width 0.5 at depth 1`."""
        name = f"width {self.width:g}"
        found = {name: self.latency_spread, f"{name} with reuse": self.reuse_latency_spread}
        found[f"{name} with features handed out"] = self.keep_latency_spread
        found |= {f"{name} at depth {one.depth}": one.latency_spread for one in self.shallower}
        return {called: spread for called, spread in found.items() if spread is not None}

    @property
    def step_gflops(self) -> float:
        """The FLOPs of one full, guided step, in 1e9."""
        return self.gflops_of(Variant(self.width))

    @property
    def step_ms(self) -> float:
        """The latency of one full, guided step, in ms; NaN where it was not measured."""
        return self.ms_of(Variant(self.width))

    def calls_of(self, variant: Variant) -> int:
        """Return the number of calls of one step of a variant of this width."""
        return self.calls if variant.guided else 1

    def macs_of(self, variant: Variant) -> float:
        """Return the MACs of one step of a variant, as a share of the calls of a full, guided step."""
        macs = self.reuse_macs if variant.reuse else self.network_macs(variant.depth)
        return math.nan if macs is None else float(macs * self.calls_of(variant)) / self.calls

    def gflops_of(self, variant: Variant) -> float:
        """Return the FLOPs of one step of a variant of this width, in 1e9.

        Raises InputError when the network can't reuse features and the variant does, and for an unknown depth.
        """
        if not variant.reuse:
            return 2e-9 * (self.network_macs(variant.depth) * self.calls_of(variant))
        if self.reuse_macs is None:
            raise InputError(f"{variant} has no counted cost: the network can't reuse features; leave out the r")
        return 2e-9 * (self.reuse_macs * self.calls_of(variant))

    def ms_of(self, variant: Variant, keeps: bool = False) -> float:
        """Return the latency of one step of a variant of this width, in ms; NaN where it was not measured.

        A full step `keeps` its features where the next step reuses them.
        """
        latency = self.reuse_latency_ms if variant.reuse else self._at_depth(variant.depth).latency_ms
        if keeps and not variant.reuse and self.keep_latency_ms is not None:
            latency = self.keep_latency_ms
        return float("nan") if latency is None else latency * self.calls_of(variant)

    def network_macs(self, depth: int | None) -> int:
        """Return the MACs of one call at a depth; None is the full one.  Raises InputError for an unknown depth."""
        return self._at_depth(depth).macs

    def _at_depth(self, depth: int | None) -> WidthCost | DepthCost:
        if depth is None:
            return self
        found = [cost for cost in self.shallower if cost.depth == depth]
        if not found:
            possible = ", ".join(str(cost.depth) for cost in self.shallower) or "full depth alone"
            raise InputError(f"width {self.width:g} has no counted cost at depth {depth}; possible: {possible}")
        return found[0]


def count_width(settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> WidthCost:
    """Count the MACs of one call on one image, full and reusing deep features, and the parameters.

    Other depths of the settings are counted, too.  What was counted is kept: it depends on the arguments alone.
    """
    return _counted(FAMILIES.load(settings.family), settings.model_dump_json(), image_channels, resolution, width)


@lru_cache(maxsize=256)
def _counted(family: object, network: str, image_channels: int, resolution: int, width: float) -> WidthCost:
    settings = NetworkSettings.model_validate_json(network)
    # On the meta device nothing is computed; on a CPU, the counter would miss fused attention.
    with torch.device("meta"):
        built = build_backbone(settings, image_channels, resolution, width).eval()
        x, t = torch.empty(1, image_channels, resolution, resolution), torch.empty(1)
    macs, reuse_macs, shallower = _macs(built, x, t), None, []
    for depth in settings.depths[:-1]:
        one = count_width(settings.at_depth(depth), image_channels, resolution, width)
        shallower.append(DepthCost(depth=depth, macs=one.macs, parameters=one.parameters))
    if splits(built):
        with torch.no_grad():
            _, deep = built.with_features(x, t)  # type: ignore[operator]
        reuse_macs = _macs(built.reusing, deep, x, t)  # type: ignore[arg-type]
    parameters = sum(p.numel() for p in built.parameters())
    return WidthCost(width=width, macs=macs, parameters=parameters, reuse_macs=reuse_macs, shallower=tuple(shallower))


def _macs(call: Callable[..., Tensor], *inputs: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(*inputs)
    return counter.get_total_flops() // 2


def plan_gflops(plan: Plan, costs: Mapping[float, WidthCost]) -> float:
    """Return the FLOPs of a plan per image, in 1e9.

    Plans of equal steps in another order cost exactly the same: otherwise the worse of two would stay on a front.
    """
    return math.fsum(costs[variant.width].gflops_of(variant) for variant in plan.variants if variant.width != SKIP)


def plan_latency_ms(plan: Plan, costs: Mapping[float, WidthCost]) -> float:
    """Return the latency of a plan per image, summed over its steps, in ms; NaN where a variant was not measured."""
    return steps_latency_ms(plan.variants, costs)


def steps_latency_ms(variants: Iterable[Variant], costs: Mapping[float, WidthCost]) -> float:
    """Return the latency of steps per image, in ms; skipped steps take no time."""
    taken = [variant for variant in variants if variant.width != SKIP]
    keeps = [*(later.reuse for later in taken[1:]), False]
    return sum(costs[variant.width].ms_of(variant, kept) for variant, kept in zip(taken, keeps, strict=False))


@torch.inference_mode()
def largest_batch(
    network: Network, image_shape: tuple[int, ...], most: int, device: torch.device, share: float = 1.0, *label: int
) -> int:
    """Return how many images one call may have: `most`, or the largest power of two below that fits.

    A batch fits when one of twice its size fits into this process's `share` of the device's memory.  The rest is for
    features, the prefix cache and other widths.  Raises InputError when two images do not fit.
    """
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, device)
    batch = most
    while True:
        try:
            x, t = torch.zeros(2 * batch, *image_shape, device=device), torch.zeros(2 * batch, device=device)
            network(x, t, *(torch.full((2 * batch,), one, device=device) for one in label))
            return batch
        except RuntimeError as error:  # OutOfMemoryError is one; beyond 2^31 values, kernels raise others
            if batch == 1:
                said = first_line(error)
                raise InputError(f"two images do not fit into {share:.0%} of the memory of {device}: {said}") from None
        x = t = torch.empty(0)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        batch = 1 << (batch - 1).bit_length() - 1


def measure_latency(
    network: Network, image_shape: tuple[int, ...], batch: int, device: torch.device, runs: int = 9
) -> float:
    """Return the median time over `runs` calls on `batch` images, in ms per image, after two warm-up calls."""
    return measure_latencies([network], image_shape, batch, device, runs)[0].ms


@torch.inference_mode()
def measure_latencies(
    networks: Sequence[Network],
    image_shape: tuple[int, ...],
    batch: int,
    device: torch.device,
    runs: int = 9,
    enough: float = math.inf,
    label: Sequence[Tensor] = (),
) -> list[Latency]:
    """Return the latencies of several networks, called in turn, so that other load slows them all alike.

    After three runs, none begins once `enough` seconds have passed.  Networks with classes need one `label` [batch].
    """
    x, t = torch.randn(batch, *image_shape, device=device), torch.zeros(batch, device=device)
    seconds: list[list[float]] = [[] for _ in networks]
    start = time.perf_counter()
    for run in range(runs + 2):
        if run >= 5 and time.perf_counter() - start > enough:
            break
        for network, times in zip(networks, seconds, strict=True):
            _wait_for(device)
            begin = time.perf_counter()
            network(x, t, *label)
            _wait_for(device)
            if run >= 2:
                times.append(time.perf_counter() - begin)
    return [_latency(times, batch) for times in seconds]


def _latency(seconds: Sequence[float], batch: int) -> Latency:
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Latency(1000 * middle / batch, (high - low) / middle)


def latency_doubt(costs: Mapping[float, WidthCost]) -> str:
    """Return in words why measured latencies are not to be relied on; empty where nothing speaks against them."""
    known = [(width, cost.latency_ms) for width, cost in sorted(costs.items()) if cost.latency_ms is not None]
    spreads = ((spread, called) for cost in costs.values() for called, spread in cost.spreads.items())
    spread, called = max(spreads, default=(0.0, ""))
    reasons = [f"runs of {called} differ by {spread:.0%} (half of them)"] if spread > MOST_SPREAD else []
    for (narrow, quick), (wide, slow) in itertools.pairwise(known):
        if quick > (1 + MOST_SPREAD) * slow:
            reasons.append(f"width {narrow:g} takes {quick / slow:.2g} times as long as width {wide:g}")
    return "; ".join(reasons)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
