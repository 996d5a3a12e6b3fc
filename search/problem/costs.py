"""What the widths of a supernet cost on the workers' device: measured once a search, in a worker, and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import ray
import torch

from stepfront.errors import InputError
from stepfront.files import read_json, write_atomically, write_json
from stepfront.search.config import RunSettings
from stepfront.search.execution.placement import worker_count
from stepfront.search.problem.problem import (
    CPU_BATCH,
    GAP_FILE,
    GapParts,
    Ingredients,
    read_gap,
    threads_per_worker,
    worker_device,
)
from stepfront.search.records.run_directory import COSTS_FILE
from stepfront.trainers.config import validate
from stepfront.trainers.devices import device_name, pick_device
from stepfront.trainers.diffusion.conditioning import calls_a_step, guided
from stepfront.trainers.diffusion.loss_gap import supernet_gap
from stepfront.trainers.inference.cost import WidthCost, count_width, largest_batch
from stepfront.trainers.inference.engine import PLAIN
from stepfront.trainers.inference.engine_choice import Bench, Measured, choose_engine
from stepfront.trainers.networks.supernet_files import supernet_from_weights


def load_or_measure_costs(ingredients: Ingredients, directory: Path) -> dict[float, WidthCost]:
    """Costs of a search are measured once and kept: latencies of one search must compare."""
    if (directory / COSTS_FILE).exists():
        return read_costs(directory)
    costs, measured = measure_widths(ingredients)
    rows = {
        "widths": [cost.model_dump(mode="json") for cost in costs.values()],
        "engines": [one.model_dump(mode="json") for one in measured],
    }
    write_json(directory / COSTS_FILE, rows)
    return costs


def measure_widths(ingredients: Ingredients) -> tuple[dict[float, WidthCost], list[Measured]]:
    """The cost of each width under the engine that a worker finds fastest, and what it found of every engine.

    Measured in a worker: the driver may lack the workers' device.  InputError where the settings force an engine that
    is not to be had.
    """
    settings, card = ingredients.settings, ingredients.card
    workers, batch = settings.workers, _batch_that_fits(ingredients)
    evaluations = (settings.budget.trials or 1000) / worker_count(workers)
    each = calls_a_step(settings.sampler.guidance)
    calls = evaluations * settings.evaluation.images * settings.sampler.steps * each
    labels = ingredients.held_out_labels(np.arange(batch) % len(ingredients.data.held_out_images))

    # Not in the worker's function: cloudpickle would take the word `classes` in it for the module torch.classes.
    scale, null = settings.sampler.guidance, card.network.classes

    @ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)
    def measure(
        weights: dict[str, np.ndarray], inputs: list[tuple[np.ndarray, float]]
    ) -> tuple[Measured, list[Measured], str] | str:
        torch.set_num_threads(threads_per_worker(settings))
        device = pick_device(worker_device(settings))
        supernet = supernet_from_weights(card, {k: torch.from_numpy(v.copy()) for k, v in weights.items()})
        label = () if labels is None else (torch.from_numpy(labels.copy()).to(device),)
        tensors = [
            (torch.from_numpy(x.copy()).to(device), torch.full((len(x),), t, device=device), *label) for x, t in inputs
        ]
        guide = None if null is None else lambda network, told: guided(network, told, null, scale)
        bench = Bench(supernet.subnet, card.network.widths, tensors, device, guide)
        try:
            return *choose_engine(bench, workers.engine, workers.precision, calls), device_name(device)
        except InputError as error:
            return str(error)

    found = ray.get(measure.remote(ray.put(ingredients.weights), ray.put(ingredients.noised(batch))))
    if isinstance(found, str):
        raise InputError(found)
    chosen, measured, device = found
    costs = {}
    for width, latency in zip(card.network.widths, chosen.latency_ms, strict=True):
        counted = count_width(card.network, card.image_channels, card.resolution, width)
        known = {"latency_ms": latency, "batch": batch, "device": device, "engine": chosen.engine, "calls": each}
        costs[width] = counted.model_copy(update=known)
    return costs, measured


def keep_gap(ingredients: Ingredients, directory: Path) -> None:
    """Makes the search's gap table in a worker, on its device, once, and keeps it with the search."""
    settings, key = ingredients.settings, ingredients.gap_key
    if read_gap(directory, key) is not None:
        return
    workers = settings.workers

    @ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)
    def measure(parts: GapParts) -> np.ndarray:
        torch.set_num_threads(threads_per_worker(settings))
        return supernet_gap(*parts, pick_device(worker_device(settings)))

    gap = ray.get(measure.remote(ray.put(ingredients.gap_parts)))

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, gap=gap, made_from=key)

    write_atomically(directory / GAP_FILE, write)


def _batch_that_fits(ingredients: Ingredients) -> int:
    """The number of images of one call, no more than an evaluation has; for `auto` found out in a worker."""
    settings, card = ingredients.settings, ingredients.card
    workers, given, images = settings.workers, settings.evaluation.batch, settings.evaluation.images
    if given != "auto" or not workers.gpus:
        return min(CPU_BATCH if given == "auto" else given, images)

    @ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)
    def fitting(weights: dict[str, np.ndarray]) -> int:
        device = pick_device(worker_device(settings))
        supernet = supernet_from_weights(card, {k: torch.from_numpy(v.copy()) for k, v in weights.items()})
        network = PLAIN.run(supernet.subnet(1.0), device, 0)
        shape = (card.image_channels, card.resolution, card.resolution)
        label = () if card.network.classes is None else (0,)
        return largest_batch(network, shape, images, device, min(1.0, workers.gpus), *label)

    return int(ray.get(fitting.remote(ray.put(ingredients.weights))))


def read_costs(directory: Path) -> dict[float, WidthCost]:
    """The costs that a search has measured."""
    rows = [validate(WidthCost, row) for row in read_json(directory / COSTS_FILE, "table of costs")["widths"]]
    return {row.width: row for row in rows}


def evaluation_limit(settings: RunSettings, costs: dict[float, WidthCost], images: int) -> float:
    """Seconds after which an evaluation of `images` images counts as hung."""
    if settings.workers.limit_minutes is not None:
        return 60 * settings.workers.limit_minutes
    latency = 0.0 if costs[1.0].latency_ms is None else 1e-3 * costs[1.0].step_ms * settings.sampler.steps * images
    return 600 + 20 * latency
