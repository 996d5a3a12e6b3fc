"""Describe how far FID moves with the noise seed, from repeated scores of two plans.

All trials of a search share one noise seed, so there are two kinds of noise.  Both are standard deviations of log FID,
that is, relative spreads:

spread      of one plan's score from seed to seed: what a score means on other seeds
difference  of two plans' difference from seed to seed, on equal seeds: what an order of two trials means on other seeds

The more alike two plans are, the more noise they have in common, and the less their difference moves.  It is measured
on plans that differ at every step.  For others its variance is taken to be proportional to the share of steps that
differ (docs/bench-noise.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from stepfront.arrays import Array
from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.search.config import EvaluationSettings

NOISE_FILE = "noise.json"

FIRST_NOISE_SEED = 2_000_000
"""First noise seed of the repeats (the search's own is added), far from those of searches and confirmations."""

LEAST_FID = 1e-9
"""FID below which its logarithm is not taken."""


def repeat_seeds(evaluation: EvaluationSettings) -> tuple[int, ...]:
    """Return the noise seeds of the repeats."""
    return tuple(FIRST_NOISE_SEED + evaluation.noise_seed + i for i in range(evaluation.noise_repeats))


@dataclass(frozen=True)
class ScoreNoise:
    """FID [plans, seeds] of at least two plans on at least two noise seeds; `gflops` [plans] are per image."""

    plans: tuple[str, ...]
    noise_seeds: tuple[int, ...]
    images: int
    fid: tuple[tuple[float, ...], ...]
    gflops: tuple[float, ...]

    @cached_property
    def spread(self) -> float:
        """Return the spread of one plan's log FID over seeds, pooled over the plans."""
        return float(np.sqrt(self._log_fid.var(axis=1, ddof=1).mean()))

    @cached_property
    def difference(self) -> float:
        """Return the spread of the difference of two plans' log FID over seeds, where every step differs."""
        y = self._log_fid
        residuals = y - y.mean(axis=1, keepdims=True) - y.mean(axis=0, keepdims=True) + y.mean()
        return float(np.sqrt(2 * (residuals**2).sum() / self._freedom))

    def difference_of(self, share: float) -> float:
        """Return the spread of the difference of two plans of which this share of the steps differs, 0 to 1."""
        return self.difference * float(np.sqrt(share))

    def threshold(self, share: float) -> float:
        """Return the difference of log FID that noise alone exceeds in 1 of 20 pairs of equally good plans.

        Student's distribution allows for a spread that is itself estimated from few seeds.
        """
        return float(stdtrit(self._freedom, 0.975)) * self.difference_of(share)

    @property
    def network_gflops(self) -> float:
        """Return the network GFLOPs of all repeats."""
        return sum(self.gflops) * len(self.noise_seeds) * self.images

    @property
    def facts(self) -> dict[str, object]:
        """Return what search.json holds of the noise."""
        return {
            "spread": self.spread,
            "spread_of_difference": self.difference,
            "plans": list(self.plans),
            "noise_seeds": list(self.noise_seeds),
            "images": self.images,
            "network_gflops": self.network_gflops,
        }

    @property
    def _log_fid(self) -> Array:
        return np.log(np.maximum(np.array(self.fid, dtype=np.float64), LEAST_FID))

    @property
    def _freedom(self) -> int:
        return (len(self.plans) - 1) * (len(self.noise_seeds) - 1)


def read_score_noise(directory: Path, evaluation: EvaluationSettings) -> ScoreNoise | None:
    """Read the repeats of a search directory; None where there are none, or others than the settings ask for.

    Raises InputError for a damaged file.
    """
    path = directory / NOISE_FILE
    if not path.exists():
        return None
    try:
        stored = read_json(path, "table of repeated scores")
        fid = tuple(tuple(float(score) for score in row) for row in stored["fid"])
        plans, seeds = tuple(map(str, stored["plans"])), tuple(map(int, stored["noise_seeds"]))
        noise = ScoreNoise(plans, seeds, int(stored["images"]), fid, tuple(map(float, stored["gflops"])))
        if np.array(fid).shape != (len(plans), len(seeds)):
            raise ValueError("fid is not a table of plans and seeds")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it, and the search scores the repeats again") from None
    wanted = (repeat_seeds(evaluation), evaluation.images)
    return noise if (noise.noise_seeds, noise.images) == wanted else None


def write_score_noise(directory: Path, noise: ScoreNoise) -> None:
    """Write the repeats of a search directory."""
    write_json(directory / NOISE_FILE, asdict(noise))
