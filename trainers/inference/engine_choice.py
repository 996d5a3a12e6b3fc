"""Choose the engine of a search by measuring every candidate on its subnets and on real inputs.

The choice is made once per search and then used by all workers.  Two engines agree only to a tolerance, and scores must
not depend on the worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stepfront.errors import InputError, first_line
from stepfront.trainers.diffusion.types import Network
from stepfront.trainers.inference import winograd
from stepfront.trainers.inference.cost import MOST_SPREAD, Latency, measure_latencies
from stepfront.trainers.inference.engine import PLAIN, Engine, EngineName, Precision, Running
from stepfront.trainers.validation import Settings
from stepfront.trainers.variant import Size

TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest relative root mean square difference to the plain float32 network's prediction, at any width and input."""

LEAST_GAIN = 1.1
"""How much faster than the plain network an engine must be to be chosen.

Less is within the variation of measurements.  Other engines also need memory in each worker, for weights in another
layout or for Winograd's filters, while the plain network shares the widest weights with its node."""

LEAST_SECONDS = 30.0
"""Seconds that an engine must save each worker over the complete search to be chosen.

A small search therefore uses the plain network.  Two small searches with equal seeds have equal scores to the bit,
whatever else the machine did during the measurement."""

COMPILE_SECONDS = 10.0
"""Least time to compile one call, such as that of a width, on a CPU (measured: 9 to 34 s)."""

ENOUGH = 10.0
"""Seconds after which the measurement of a width ends with its third run."""

ATTEMPTS = 3
"""Measurements of a width whose runs differ, as on a machine on which something else runs."""


class Measured(Settings):
    """The measurement of one candidate.

    `latency_ms` is per image and call, narrowest width first, and `latency_spread` how far its runs differed, as a
    share of it.  `startup_seconds` is what the first calls take; where calls are compiled, those of all variants, each
    as long as a width's in the mean.  `refused` is why the candidate can't be used.
    """

    engine: Engine
    latency_ms: tuple[float, ...] = ()
    latency_spread: tuple[float, ...] = ()
    difference: float = 0.0
    startup_seconds: float = 0.0
    refused: str = ""


class FeatureLatencies(NamedTuple):
    """Latencies of a call that reuses deep features, and of a full one that hands them out.

    The second is None where it is that of any full call.
    """

    reuse: Latency
    keep: Latency | None


@dataclass(frozen=True)
class Bench:
    """What the measurement runs on.

    `subnet(width)` makes a new network, and `subnet(width, depth)` a shallower one.  `inputs` are (x [batch, C, H, W],
    t [batch]) and, with classes, label [batch], as they occur in a sampler.  `guided` turns a network and its labels
    into what a guided sampler calls.  Guidance amplifies what an engine changes, so guided predictions are compared.
    `more_calls` says how many calls a worker may run beside one per width: at other depths, with deep features.
    """

    subnet: Callable[..., nn.Module]
    widths: tuple[float, ...]
    inputs: Sequence[tuple[Tensor, ...]]
    device: torch.device
    guided: Callable[[Callable[..., Tensor], Tensor], Callable[..., Tensor]] | None = None
    more_calls: int = 0

    @torch.inference_mode()
    def measure(self, engines: Sequence[Engine]) -> list[Measured]:
        """Measure all engines side by side, one width after the other."""
        shape, label = self.inputs[0][0].shape, self.inputs[0][2:]
        found = [Measured(engine=engine) for engine in engines]
        for width in self.widths:
            running = [engine.run(self.subnet(width), self.device, shape[0]) for engine in engines]
            reference = PLAIN.run(self.subnet(width), self.device, shape[0])
            first_calls = [_seconds(each, self.inputs[0]) for each in running]
            differences = [self._difference(each, reference) for each in running]
            latencies = self._latencies(running, tuple(shape[1:]), shape[0], label)
            found = [
                before.model_copy(
                    update={
                        "latency_ms": (*before.latency_ms, latency.ms),
                        "latency_spread": (*before.latency_spread, latency.spread),
                        "difference": max(before.difference, difference),
                        "startup_seconds": before.startup_seconds + first,
                    }
                )
                for before, first, latency, difference in zip(found, first_calls, latencies, differences, strict=True)
            ]
        return [_checked(self._with_all_calls(one)) for one in found]

    def _with_all_calls(self, one: Measured) -> Measured:
        """Return a measurement whose start-up has the compiling of all calls, not of the measured widths alone."""
        share = (len(self.widths) + self.more_calls) / len(self.widths) if one.engine.compiles else 1.0
        return one.model_copy(update={"startup_seconds": share * one.startup_seconds})

    @torch.inference_mode()
    def feature_latencies(self, engine: Engine, widths: Sequence[float]) -> dict[float, FeatureLatencies]:
        """Return the latencies of calls that reuse or hand out deep features, at each of the widths."""
        found = {}
        for width in widths:
            running = engine.run(self.subnet(width), self.device, len(self.inputs[0][0]))
            assert isinstance(running, Running)  # groups of times reuse nothing
            _, deep = running.with_features(*self.inputs[0])
            shape, label = self.inputs[0][0].shape, self.inputs[0][2:]
            calls = [partial(running.reusing, deep), running.with_features]
            reuse, keep = self._latencies(calls, tuple(shape[1:]), shape[0], label)  # type: ignore[arg-type]
            # Only CUDA graphs, which hand out no features, make the second one another kind of call.
            found[width] = FeatureLatencies(reuse, keep if engine.records else None)
        return found

    @torch.inference_mode()
    def depth_latencies(self, engine: Engine, sizes: Sequence[Size]) -> dict[Size, Latency]:
        """Return the latency of a call at each of the sizes."""
        shape, label, found = self.inputs[0][0].shape, self.inputs[0][2:], {}
        for size in sizes:
            running = engine.run(self.subnet(*size), self.device, shape[0])
            (found[size],) = self._latencies([running], tuple(shape[1:]), shape[0], label)
        return found

    def _latencies(
        self, running: Sequence[Network], shape: tuple[int, ...], batch: int, label: Sequence[Tensor]
    ) -> list[Latency]:
        """Measure networks, again where other load disturbed the runs, and keep the quietest measurement of each."""
        best: list[Latency] = []
        for _ in range(ATTEMPTS):
            found = measure_latencies(running, shape, batch, self.device, enough=ENOUGH, label=label)
            best = [min(pair, key=lambda one: one.spread) for pair in zip(best or found, found, strict=True)]
            if max(one.spread for one in best) <= MOST_SPREAD:
                break
        return best

    def _difference(self, network: Callable[..., Tensor], reference: Callable[..., Tensor]) -> float:
        differences = []
        for each in self.inputs:
            expected, made = self._predict(reference, each).double(), self._predict(network, each)
            change, scale = (made - expected).square().mean().sqrt(), expected.square().mean().sqrt()
            differences.append(float(change / scale) if scale else float(change))
        return float(np.max(differences))  # NaN if one is

    def _predict(self, network: Callable[..., Tensor], given: tuple[Tensor, ...]) -> Tensor:
        if self.guided is None:
            return network(*given)
        return self.guided(network, given[2])(*given[:2])


def choose_engine(
    bench: Bench, name: Literal["auto"] | EngineName, precision: Literal["auto"] | Precision, calls: float
) -> tuple[Measured, list[Measured]]:
    """Return the engine to use, and all measurements, the plain network's first.

    `calls` is the expected number of calls on one image per worker, within which compiling has to pay off.
    A name or precision other than `auto` is used as given; raises InputError when it changes the output too much or
    can't be used.
    """
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if bench.device.type == "cuda" else ("float32",)
    if precision != "auto":
        precisions = (precision,)
    names: tuple[EngineName, ...] = _candidates(bench.device) if name == "auto" else (name,)
    wanted = [Engine(name=each_name, precision=each) for each_name in names for each in precisions]
    if name == "auto" and "float32" in precisions:
        wanted.append(Engine(name="winograd"))
    unfit = {engine: reason for engine in wanted if (reason := _unfit(engine, bench))}
    certain = [engine for engine in wanted if not (engine.compiles or engine.records)]
    measured = bench.measure([PLAIN, *(engine for engine in certain if engine not in (PLAIN, *unfit))])
    measured += [Measured(engine=engine, refused=reason) for engine, reason in unfit.items()]
    plain_seconds = 1e-3 * _mean(measured[0]) * calls
    for engine in wanted:
        if engine in certain or engine in unfit:
            continue
        startup = COMPILE_SECONDS * (len(bench.widths) + bench.more_calls)
        if name == "auto" and engine.compiles and plain_seconds < 2 * startup:
            reason = (
                f"not tried: compiling takes at least {startup:.0f} s, and a worker is expected to spend about "
                f"{plain_seconds:.0f} s in networks"
            )
            measured.append(Measured(engine=engine, refused=reason))
            continue
        measured.append(_tried(engine, bench))
    forced = name != "auto" or precision != "auto"
    return _pick([one for one in measured if not forced or one.engine in wanted], measured, calls), measured


def _candidates(device: torch.device) -> tuple[EngineName, ...]:
    """Return the names of the engines that are measured for a device, quickest to start first."""
    if device.type == "cuda":
        return "plain", "channels_last", "cuda_graphs", "compiled_cuda_graphs"
    return "plain", "channels_last", "compiled"


def _tried(engine: Engine, bench: Bench) -> Measured:
    """Measure an engine that may be impossible on this machine."""
    try:
        return bench.measure([engine])[0]
    except Exception as error:  # a missing C++ compiler, too little memory, or whatever the compiler itself may raise
        verb, said = "compiled" if engine.compiles else "recorded", first_line(error)
        return Measured(engine=engine, refused=f"can't be {verb} here: {type(error).__name__}: {said}")


def _unfit(engine: Engine, bench: Bench) -> str:
    """Return why an engine does not suit this device or network; empty when it does."""
    if engine.records:
        return "" if bench.device.type == "cuda" else "is for GPUs: CPUs have no CUDA graphs"
    if engine.name != "winograd":
        return ""
    if bench.device.type != "cpu":
        return "is for CPUs; on GPUs cuDNN has its own Winograd convolutions"
    if engine.precision != "float32":
        return "is for float32; in bfloat16 its transforms lose too much precision"
    if not any(map(winograd.suits, bench.subnet(max(bench.widths)).modules())):
        return "the network has no 3x3 convolution with enough channels for it"
    return ""


def _pick(possible: Sequence[Measured], measured: Sequence[Measured], calls: float) -> Measured:
    allowed = [one for one in possible if not one.refused]
    if not allowed:
        raise InputError(
            f"workers.engine {possible[0].engine.name}, workers.precision {possible[0].engine.precision}: "
            f"{possible[0].refused}"
        )

    def seconds(one: Measured) -> float:
        return 1e-3 * _mean(one) * calls + one.startup_seconds

    best, plain = min(allowed, key=seconds), measured[0]
    little = seconds(plain) < max(LEAST_GAIN * seconds(best), LEAST_SECONDS + seconds(best))
    return plain if plain in allowed and little else best


def _seconds(network: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> float:
    begin = time.perf_counter()
    network(*inputs)
    return time.perf_counter() - begin


def _mean(one: Measured) -> float:
    return sum(one.latency_ms) / len(one.latency_ms)


def _checked(one: Measured) -> Measured:
    most = TOLERANCE[one.engine.precision]
    if one.engine == PLAIN or one.difference <= most:
        return one
    return one.model_copy(
        update={"refused": f"changes the network's prediction by {one.difference:.2g}, more than {most:g} of its size"}
    )
