"""Define what the evaluation of one plan records: its score, its costs and where the time went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

PAIRED_IMAGES = 32
"""Images that the proxy `paired` compares."""


@dataclass(frozen=True)
class Evaluation:
    """What one plan scored and cost; `error` is the reason where it has no score.

    `gflops` and `latency_ms` are those of the complete plan, per image; the latency is that of the device that the
    search measured, whatever `device` evaluated.  `paired` is the mean squared difference of the first `PAIRED_IMAGES`
    images to those of full width from the same noise.

    `calls` are the network calls that were made, one per image and step (two under guidance).  `calls_saved` are those
    that a prefix shared with an earlier plan saved, and `gflops_saved` is what they would have cost.  `seconds` is the
    time of the complete evaluation.  Sampling, features and distance are parts of it; the rest made subnets and
    `paired`.  `prefix_states` and `prefix_mb` are what the worker has cached of recent plans.
    """

    fid: float
    gflops: float
    latency_ms: float
    features: str
    images: int
    noise_seed: int
    seconds: float = 0.0
    error: str = ""
    paired: float = float("nan")
    # These depend on what the worker had cached of other plans; the score does not.
    calls: int = field(default=0, compare=False)
    calls_saved: int = field(default=0, compare=False)
    gflops_saved: float = field(default=0.0, compare=False)
    sampling_seconds: float = field(default=float("nan"), compare=False)
    features_seconds: float = field(default=float("nan"), compare=False)
    distance_seconds: float = field(default=float("nan"), compare=False)
    prefix_states: int = field(default=0, compare=False)
    prefix_mb: float = field(default=0.0, compare=False)
    device: str = field(default="", compare=False)
    # A user's own scores by name, as the user's functions return them.
    scores: Mapping[str, float] = field(default_factory=dict)

    def value(self, name: str) -> float:
        """Return an objective by name: a user's own score, or the number of this name."""
        return float(self.scores[name] if name in self.scores else getattr(self, name))

    def record(self) -> dict[str, Any]:
        """Return all values by name, the user's own scores among them."""
        values = asdict(self)
        return {key: value for key, value in values.items() if key != "scores"} | dict(self.scores)


@dataclass(frozen=True)
class Confirmation(Evaluation):
    """An evaluation with KID, precision and recall, and with a second judge's FID and FID-infinity where asked for.

    The first three are computed on `real_images` rows of real images and on as many generated ones.  They are NaN where
    there are no features of real images.  `second_fid` and `fid_infinity` are of all generated images.  With a second
    judge, `blurred_fid` and `second_blurred_fid` are both judges' scores of the images after a clear blur, for plans at
    full width alone: what a claim compares with must be worse when it is blurred.
    """

    kid: float = float("nan")
    precision: float = float("nan")
    recall: float = float("nan")
    real_images: int = 0
    second_fid: float = float("nan")
    second_features: str = ""
    fid_infinity: float = float("nan")
    blurred_fid: float = float("nan")
    second_blurred_fid: float = float("nan")
