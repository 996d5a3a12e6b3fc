"""What a search's scores depend on: settings in; supernet, images, features, costs and encoding, checked, out."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.search.algorithm.earlier_search import earlier_models
from stepfront.search.algorithm.encodings import Encoding, Levels, make_encoding
from stepfront.search.algorithm.initial_plans import PlanSource
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.config import RunSettings, parse_constraint
from stepfront.search.records.run_directory import FACTS_FILE, keep_earlier
from stepfront.search.storage.working_copy import arrived
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.data import ImageData, Labels, Pixels, Progress, load_data, to_float
from stepfront.trainers.devices import pick_device
from stepfront.trainers.diffusion.conditioning import check_classes
from stepfront.trainers.diffusion.loss_gap import supernet_gap
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.evaluation import EvaluatorParts
from stepfront.trainers.inference.cost import WidthCost
from stepfront.trainers.inference.engine import PLAIN
from stepfront.trainers.metrics.features import PackedFeatures, prepare_features, real_features
from stepfront.trainers.metrics.fid import Reference
from stepfront.trainers.networks.card import CARD_FILE, SupernetCard, check_fingerprint, read_card
from stepfront.trainers.networks.supernet_files import WEIGHTS_FILE, supernet_from_weights
from stepfront.trainers.networks.weights import read_weights, weights_digest

GAP_FILE = "gap.npz"

GapParts = tuple[SupernetCard, dict[str, np.ndarray], tuple[float, ...], Pixels, Labels | None]

CPU_BATCH = 256
"""Images of one call on a CPU, where more are no faster."""


@dataclass(frozen=True)
class Ingredients:
    """All that a search's scores depend on, loaded and checked against each other."""

    settings: RunSettings
    data: ImageData
    card: SupernetCard
    weights: dict[str, np.ndarray]
    features: PackedFeatures
    reference: Reference

    @staticmethod
    def load(settings: RunSettings, progress: Progress = lambda done, total: None) -> Ingredients:
        """InputError when the supernet is missing, damaged, or was made from other data."""
        directory = arrived(settings.supernet_directory)
        if not (directory / CARD_FILE).exists():
            raise InputError(f"no supernet in {directory}; train one first: stepfront train CONFIG")
        card = read_card(directory)
        data = load_data(settings.data, progress)
        check_fingerprint(card, data.fingerprint, directory)
        if settings.sampler.guidance != 1 and card.made_with.get("null_class") == "none":
            raise InputError(
                f"sampler.guidance {settings.sampler.guidance:g} needs a null class, and {directory} was imported "
                "without one; train it further (stepfront train drops labels), or give guidance 1"
            )
        made = card.made_with.get("settings", {}).get("training", {})
        if settings.sampler.guidance != 1 and made.get("drop_labels") == 0:
            raise InputError(
                f"sampler.guidance {settings.sampler.guidance:g} needs a supernet that was trained with "
                f"training.drop_labels above 0; {directory} was not"
            )
        if card.network != settings.network:
            raise InputError(f"the supernet in {directory} has another network than these settings")
        check_classes(data, card.network.classes)
        weights = read_weights(directory / WEIGHTS_FILE)
        if weights_digest(weights) != card.digest:
            raise InputError(f"{directory / WEIGHTS_FILE} does not belong to its card: the weights' digest differs")
        supernet_from_weights(card, weights, directory / WEIGHTS_FILE)
        packed, reference = prepare_features(data, settings.features, directory, torch.device("cpu"))
        arrays = {name: value.numpy() for name, value in weights.items()}
        return Ingredients(settings, data, card, arrays, packed, reference)

    @staticmethod
    def of_search(settings: RunSettings, directory: Path) -> Ingredients:
        """Those of a search that exists.  InputError when the supernet is no longer the one that it was made with."""
        found = Ingredients.load(settings)
        facts = read_json(directory / FACTS_FILE, "search")
        if facts.get("supernet_digest") != found.card.digest:
            raise InputError(
                f"the search in {directory} was made with another supernet than lies in {settings.supernet_directory} "
                f"(digest {str(facts.get('supernet_digest'))[:12]}, not {found.card.digest[:12]}); search anew"
            )
        return found

    def real(self) -> np.ndarray | None:
        """Feature rows [N, D] of real images; None where only statistics of them are there."""
        settings = self.settings
        return real_features(
            self.data,
            self.features,
            self.reference,
            settings.features,
            settings.supernet_directory,
            pick_device("auto"),
        )

    @cached_property
    def times(self) -> tuple[float, ...]:
        """The sampler's times, noise first."""
        return self.times_of(self.settings.sampler.steps)

    def times_of(self, steps: int) -> tuple[float, ...]:
        """The times of a sampler of so many steps on the same grid, noise first."""
        return _grid(self.card.diffusion, self.settings.sampler.grid, steps)

    @cached_property
    def encoding(self) -> Encoding:
        return make_encoding(self.settings.space, self.settings.sampler.steps, self.card.network.widths)

    def plan_of(self, genome: str) -> Plan:
        """The plan of a genome."""
        return self.plan_at(self.encoding.unpack(genome))

    def plan_at(self, levels: Levels) -> Plan:
        """The plan of levels; one of fewer steps is on the time grid of that many."""
        widths = self.encoding.step_widths(levels)
        times = self.times if len(widths) == len(self.times) else self.times_of(len(widths))
        return Plan(times, widths, self.settings.sampler.solver)

    def prices(self, costs: dict[float, WidthCost]) -> dict[str, Callable[[Levels], float]]:
        """What is known of levels before any evaluation, by the name of the objective; sums as those of cost.py."""

        def summed(each: list[float]) -> Callable[[Levels], float]:
            table = np.array([*each, 0.0])  # level -1, a step that is left out, is the last entry
            return lambda levels: float((self.encoding.lengths * table[levels]).sum())

        widths = [costs[width] for width in self.card.network.widths]
        return {
            "gflops": summed([cost.step_gflops for cost in widths]),
            "latency_ms": summed([cost.step_ms for cost in widths]),
        }

    def affordable(self, costs: dict[float, WidthCost]) -> Callable[[Levels], bool]:
        """Whether levels keep the constraints that are known before an evaluation: those of cost.

        InputError where not even the narrowest plan does.
        """
        prices = self.prices(costs)
        limits = [limit for limit in map(parse_constraint, self.settings.evaluation.constraints) if limit[0] in prices]

        def keeps(levels: Levels) -> bool:
            return all(
                prices[name](levels) <= bound if sign == "<=" else prices[name](levels) >= bound
                for name, sign, bound in limits
            )

        ends = [np.full(self.encoding.units, level) for level in (0, self.encoding.highest)]
        for name, sign, bound in limits:
            extreme = prices[name](ends[0] if sign == "<=" else ends[1])
            # With skip a plan may be cheaper than any of one width; none is dearer than the widest.
            if (extreme > bound and not self.encoding.skip) if sign == "<=" else extreme < bound:
                raise InputError(
                    f"no plan keeps the constraint {name} {sign} {bound:g}: of one width alone, the "
                    f"{'narrowest' if sign == '<=' else 'widest'} has {extreme:.4g}"
                )
        return keeps

    def uniform_plan(self, width: float) -> Plan:
        """One width at every step."""
        return Plan(self.times, (width,) * len(self.times), self.settings.sampler.solver)

    def parts(self, costs: dict[float, WidthCost], device: str, threads: int) -> EvaluatorParts:
        """What an evaluation worker is made of."""
        settings = self.settings
        return EvaluatorParts(
            self.card,
            self.weights,
            self.features,
            self.reference,
            settings.sampler,
            costs,
            self.batch(costs) if device == worker_device(settings) else min(CPU_BATCH, self.batch(costs)),
            device,
            threads,
            # A driver without the workers' device runs what every device can.
            costs[1.0].engine if device == worker_device(settings) else PLAIN,
            settings.workers.prefix_mb,
        )

    def batch(self, costs: dict[float, WidthCost]) -> int:
        """Images of one network call: those of the settings, or what fitted when the widths were measured."""
        given = self.settings.evaluation.batch
        return (costs[1.0].batch or CPU_BATCH) if given == "auto" else given

    def plan_source(self, costs: dict[float, WidthCost]) -> PlanSource:
        """What the first generation and the baselines are made from."""
        return PlanSource(
            encoding=self.encoding,
            width_costs=np.array([float(costs[width].macs) for width in self.card.network.widths]),
            half_log_snr=noise_schedule(self.card.diffusion).half_log_snr(np.array(self.times)),
            gap=lambda: self.gap,
            seed=self.settings.search_seed,
            affordable=self.affordable(costs),
            earlier=keep_earlier(self.settings, self.settings.search_directory),
        )

    def held_out_labels(self, rows: np.ndarray | slice) -> Labels | None:
        """Labels of held-out images; None for an unconditional supernet."""
        labels = self.data.held_out_labels
        return labels[rows] if labels is not None and self.card.network.classes is not None else None

    def noised(self, batch: int) -> list[tuple[np.ndarray, float]]:
        """(x [batch, C, H, W], time) as a sampler meets them: held-out images under its own noise, from pure noise to
        almost none."""
        schedule, count = noise_schedule(self.card.diffusion), len(self.data.held_out_images)
        images = to_float(self.data.held_out_images[np.arange(batch) % count]).numpy()
        noise = Noise(self.settings.evaluation.noise_seed, images.shape[1:]).initial(range(batch))
        found = []
        for time in (self.times[0], self.times[len(self.times) // 2], self.times[-1]):
            alpha, sigma = (float(f(np.array([time]))[0]) for f in (schedule.alpha, schedule.sigma))
            found.append(((alpha * images + sigma * noise).astype(np.float32), time))
        return found

    @cached_property
    def gap(self) -> np.ndarray:
        """The gap table [steps, widths] on held-out images: as the search keeps it, or else made here."""
        kept = read_gap(self.settings.search_directory, self.gap_key)
        return supernet_gap(*self.gap_parts, torch.device("cpu")) if kept is None else kept

    @property
    def gap_parts(self) -> GapParts:
        """What the gap table is made of: card, weights, times, images and their labels."""
        held_out = slice(self.settings.training.held_out_images)
        return self.card, self.weights, self.times, self.data.held_out_images[held_out], self.held_out_labels(held_out)

    @property
    def gap_key(self) -> str:
        """Says of which supernet, times and images a gap table is."""
        made_from = (self.card.digest, self.data.fingerprint, self.times, self.settings.training.held_out_images)
        return hashlib.sha256(repr(made_from).encode()).hexdigest()

    @cached_property
    def plan_features(self) -> PlanFeatures:
        """What the model of FID sees of a plan."""
        kept = keep_earlier(self.settings, self.settings.search_directory)
        earlier = earlier_models(self.settings.initial_plans, self.encoding, self.gap, kept)
        return PlanFeatures(self.encoding, self.gap, earlier)

    def spec(self, costs: dict[float, WidthCost]) -> dict[str, Any]:
        """What two searches must have in common for their scores to compare."""
        s, engine = self.settings, costs[1.0].engine
        return {
            "supernet": self.card.digest,
            "data": self.data.fingerprint,
            "features": f"{self.features.name} {self.features.digest[:12]}",
            # Guidance 1 is left out, as in searches older than it.
            "sampler": s.sampler.model_dump(mode="json", exclude={"guidance"} if s.sampler.guidance == 1 else None),
            "space": s.space.model_dump(mode="json"),
            "images": s.evaluation.images,
            "noise_seed": s.evaluation.noise_seed,
            "objectives": list(s.evaluation.objectives),
            "constraints": list(s.evaluation.constraints),
            # None, as in searches older than engines: these ran the plain network, too.
            "engine": None if engine == PLAIN else engine.label,
        }


@lru_cache
def _grid(diffusion: DiffusionSettings, grid: str, steps: int) -> tuple[float, ...]:
    return tuple(map(float, time_grid(noise_schedule(diffusion), grid, steps)))


def worker_device(settings: RunSettings) -> str:
    """A worker with a share of a GPU runs there, any other on its CPUs."""
    return "cuda" if settings.workers.gpus else "cpu"


def threads_per_worker(settings: RunSettings) -> int:
    """As many threads as CPUs, so that workers do not fight for cores."""
    return max(1, int(settings.workers.cpus))


def read_gap(directory: Path, key: str) -> np.ndarray | None:
    """The gap table that lies in a search's directory; None where there is none, or one of something else."""
    try:
        with np.load(directory / GAP_FILE, allow_pickle=False) as kept:
            return np.asarray(kept["gap"]) if str(kept["made_from"]) == key else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
