"""Hold a trained supernet with its judges on a device, and score plans on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.samplers.judges import Judges, open_judges
from stepfront.trainers.devices import device_name
from stepfront.trainers.diffusion.noise import CachedNoise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import NoiseSchedule, noise_schedule
from stepfront.trainers.diffusion.types import Network
from stepfront.trainers.inference.engine import PLAIN, Engine
from stepfront.trainers.metrics.fid import Moments
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet

FIRST_SEED = 7_000_000
"""First noise seed; neither a search, a confirmation nor learning uses it."""


@dataclass
class Case:
    """A supernet and its judges on one device; `images` are those of a score, in batches of `batch`."""

    supernet: Supernet
    schedule: NoiseSchedule
    judges: Judges
    device: torch.device
    images: int
    batch: int
    engine: Engine = PLAIN
    _networks: dict[float, Network] = field(default_factory=dict)
    _noise: dict[int, CachedNoise] = field(default_factory=dict)

    @property
    def device_name(self) -> str:
        """The device in words."""
        return device_name(self.device)

    def learner(self, widths: Iterable[float]) -> Sampler:
        """Return a sampler whose networks let gradients through: full width, and the widths of a plan."""
        networks = {width: self.supernet.subnet(width).to(self.device) for width in {1.0, *widths}}
        return Sampler(networks, self.schedule, self._noise_of(0), self.device)

    def scores(self, plan: Plan, seed: int, judges: Judges | None = None) -> dict[str, float]:
        """Return the Frechet distance of the plan's images from the noise of `seed`, by judge."""
        for width in {*plan.widths} - self._networks.keys():
            network = self.supernet.subnet(width)
            self._networks[width] = self.engine.run(network, self.device, self.batch)
        sampler = Sampler(self._networks, self.schedule, self._noise_of(seed), self.device)
        images = list(sampler.sample(plan, self.images, self.batch))
        found = {}
        for name, (features, reference) in (self.judges if judges is None else judges).items():
            moments = Moments.of(features(batch) for batch in images)
            found[name] = reference.distance(moments) if np.isfinite(moments.mean).all() else float("inf")
        return found

    def first_score(self, plan: Plan, seed: int) -> float:
        """Return the distance by the first judge alone, which samplers are chosen by."""
        name = next(iter(self.judges))
        return self.scores(plan, seed, {name: self.judges[name]})[name]

    def _noise_of(self, seed: int) -> CachedNoise:
        shape = (self.supernet.image_channels, self.supernet.resolution, self.supernet.resolution)
        return self._noise.setdefault(seed, CachedNoise(seed, shape))


def open_case(directory: Path, device: torch.device, images: int) -> Case:
    """Return the supernet in `directory` with the judges that were prepared beside it."""
    supernet, card = load_supernet(directory)
    on_gpu = device.type == "cuda"
    engine = Engine(name="cuda_graphs") if on_gpu else PLAIN
    batch = min(images, 512 if on_gpu else 256)
    return Case(supernet, noise_schedule(card.diffusion), open_judges(directory, device), device, images, batch, engine)
