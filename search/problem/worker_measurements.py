"""Measure on a worker, on its device, what a search needs to know once: widths, batch and gap table.

The driver of a cluster may lack the workers' device.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
import ray
import torch

from stepfront.errors import InputError
from stepfront.search.execution.placement import remote_options, worker_count
from stepfront.search.problem.evaluator_parts import CPU_BATCH, threads_per_worker, worker_device
from stepfront.search.problem.problem import SearchProblem
from stepfront.trainers.data import to_float
from stepfront.trainers.devices import device_name, pick_device
from stepfront.trainers.diffusion.conditioning import calls_per_step, guided
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.inference.cost import DepthCost, Latency, WidthCost, count_width, largest_batch
from stepfront.trainers.inference.engine import PLAIN
from stepfront.trainers.inference.engine_choice import Bench, FeatureLatencies, Measured, choose_engine
from stepfront.trainers.networks.supernet_files import supernet_from_weights
from stepfront.trainers.step_losses.error_table import StepErrors
from stepfront.trainers.variant import Size

T = TypeVar("T", covariant=True)

Inputs = list[tuple[np.ndarray, float]]
"""(x [batch, C, H, W], time) of some network calls."""


_Chosen = tuple[Measured, list[Measured], dict[float, FeatureLatencies], dict[Size, Latency], str]
"""The chosen engine, all measurements, latencies, and the device's name.

The latencies are of calls with features, by width, and of shallower networks, by size.
"""


def measure_widths(problem: SearchProblem) -> tuple[dict[float, WidthCost], list[Measured]]:
    """Return the cost of each width under the engine that a worker finds fastest, and its measurement of every engine.

    Raises InputError where the settings force an engine that the worker cannot run.
    """
    batch = _fitting_batch(problem)
    result = _choose_engine_on_worker(problem, batch)
    if isinstance(result, str):
        raise InputError(result)
    chosen, measured, features, shallower, device = result
    card, calls = problem.card, calls_per_step(problem.settings.sampler.guidance)
    costs = {}
    common = {"batch": batch, "device": device, "engine": chosen.engine, "calls": calls}
    for width, latency, spread in zip(card.network.widths, chosen.latency_ms, chosen.latency_spread, strict=True):
        counted = count_width(card.network, card.image_channels, card.resolution, width)
        found: dict[str, float | None] = {"latency_ms": latency, "latency_spread": spread}
        if width in features:
            found |= _of_features(features[width])
        if card.groups is not None:  # features of one group's weights mean nothing to another's
            found["reuse_macs"] = None
        depths = tuple(_with_latency(one, shallower.get(Size(width, one.depth))) for one in counted.shallower)
        costs[width] = counted.model_copy(update=found | common | {"shallower": depths})
    return costs, measured


def _of_features(measured: FeatureLatencies) -> dict[str, float | None]:
    reuse, keep = measured
    found: dict[str, float | None] = {"reuse_latency_ms": reuse.ms, "reuse_latency_spread": reuse.spread}
    return found if keep is None else found | {"keep_latency_ms": keep.ms, "keep_latency_spread": keep.spread}


def _with_latency(cost: DepthCost, measured: Latency | None) -> DepthCost:
    if measured is None:
        return cost
    return cost.model_copy(update={"latency_ms": measured.ms, "latency_spread": measured.spread})


def _choose_engine_on_worker(problem: SearchProblem, batch: int) -> _Chosen | str:
    """Return what a worker measured; a string gives the reason of a refusal."""
    settings, card, workers = problem.settings, problem.card, problem.settings.workers
    evaluations = (settings.budget.trials or 1000) / worker_count(workers)
    per_image = settings.sampler.steps * calls_per_step(settings.sampler.guidance)
    calls = evaluations * settings.evaluation.images * per_image
    labels = problem.held_out_labels(np.arange(batch) % len(problem.data.held_out_images))

    # Not in the worker's function: cloudpickle would take the word `classes` in it for the module torch.classes.
    # Predictions are compared at the largest scale, which amplifies most what an engine changes.
    scale = max(variant.scale_at(settings.sampler.guidance) for variant in problem.variants if variant.guided)
    null = card.network.classes
    reusing = sorted({variant.width for variant in problem.variants if variant.reuse})
    shallower = sorted({variant.size for variant in problem.variants if variant.depth is not None})

    # Each worker compiles what its plans call: sizes per group of times, and two more calls per width that reuses.
    groups = 1 if card.groups is None else len(card.groups.cuts) + 1
    widths = card.network.widths
    more = groups * (len(widths) + len(shallower)) + 2 * len(reusing) - len(widths)

    @ray.remote(**remote_options(workers))
    def measure(weights: dict[str, np.ndarray], inputs: Inputs) -> _Chosen | str:
        torch.set_num_threads(threads_per_worker(settings))
        device = pick_device(worker_device(settings))
        supernet = supernet_from_weights(card, {k: torch.from_numpy(v.copy()) for k, v in weights.items()})
        label = () if labels is None else (torch.from_numpy(labels.copy()).to(device),)
        tensors = [
            (torch.from_numpy(x.copy()).to(device), torch.full((len(x),), t, device=device), *label) for x, t in inputs
        ]
        guide = None if null is None else lambda network, given: guided(network, given, null, scale)
        bench = Bench(supernet.subnet, widths, tensors, device, guide, more)
        try:
            chosen, measured = choose_engine(bench, workers.engine, workers.precision, calls)
            by_width = bench.feature_latencies(chosen.engine, reusing)
            by_size = bench.depth_latencies(chosen.engine, shallower)
            return chosen, measured, by_width, by_size, device_name(device)
        except InputError as error:
            return str(error)

    return ray.get(measure.remote(ray.put(problem.weights), ray.put(noised_inputs(problem, batch))))


def noised_inputs(problem: SearchProblem, batch: int) -> Inputs:
    """Return network inputs as a sampler meets them, from pure noise to almost none.

    They are held-out images, or their latents, under the sampler's own noise.
    """
    schedule, count = noise_schedule(problem.card.diffusion), len(problem.data.held_out_images)
    images = to_float(problem.data.clean_held_out(np.arange(batch) % count)).numpy()
    noise = Noise(problem.settings.evaluation.noise_seed, images.shape[1:]).initial(range(batch))
    times = problem.times
    inputs = []
    for time in (times[0], times[len(times) // 2], times[-1]):
        alpha, sigma = (float(f(np.array([time]))[0]) for f in (schedule.alpha, schedule.sigma))
        inputs.append(((alpha * images + sigma * noise).astype(np.float32), time))
    return inputs


def measure_gap(problem: SearchProblem) -> np.ndarray:
    """Return the gap table [steps, widths] of a problem, measured on a worker."""
    return np.asarray(_measured(problem, problem.gap_inputs))


def measure_step_errors(problem: SearchProblem) -> StepErrors:
    """Return the errors of steps of a problem, measured on a worker."""
    return _measured(problem, problem.step_error_inputs)


class _Inputs(Protocol[T]):
    def measure(self, device: torch.device) -> T: ...


def _measured(problem: SearchProblem, inputs: _Inputs[T]) -> T:
    """Return what the inputs measure on a worker's device."""
    settings, workers = problem.settings, problem.settings.workers

    @ray.remote(**remote_options(workers))
    def measure(inputs: _Inputs[T]) -> T:
        torch.set_num_threads(threads_per_worker(settings))
        return inputs.measure(pick_device(worker_device(settings)))

    return ray.get(measure.remote(ray.put(inputs)))


def _fitting_batch(problem: SearchProblem) -> int:
    """Return the images per network call, at most those of an evaluation; a worker finds out what `auto` is."""
    settings, card = problem.settings, problem.card
    workers, given, images = settings.workers, settings.evaluation.batch, settings.evaluation.images
    label = () if card.network.classes is None else (0,)
    if given != "auto" or not workers.gpus:
        return min(CPU_BATCH if given == "auto" else given, images)

    @ray.remote(**remote_options(workers))
    def fitting(weights: dict[str, np.ndarray]) -> int:
        device = pick_device(worker_device(settings))
        supernet = supernet_from_weights(card, {k: torch.from_numpy(v.copy()) for k, v in weights.items()})
        network = PLAIN.run(supernet.subnet(1.0), device, 0)
        shape = (card.image_channels, card.resolution, card.resolution)
        return largest_batch(network, shape, images, device, min(1.0, workers.gpus), *label)

    return int(ray.get(fitting.remote(ray.put(problem.weights))))
