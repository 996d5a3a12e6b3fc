"""Say what learning a sampler brought and cost, and refuse what is not better than its closed-form start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stepfront.errors import InputError
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.sampler_learning.descent import Check


@dataclass(frozen=True)
class TriedStart:
    """A start of learning: the distance of the stopping pairs there, and the least after its share of iterations.

    `earlier` are samplers that were learnt elsewhere.  A distance that is not finite is NaN, and so is `least` where
    learning diverged.
    """

    name: str
    first: float
    least: float
    earlier: bool = False

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> TriedStart:
        """Return the start of its JSON values, in which null stands for NaN."""
        first, least = (math.nan if content[name] is None else float(content[name]) for name in ("first", "least"))
        return TriedStart(str(content["name"]), first, least, bool(content["earlier"]))


@dataclass(frozen=True)
class LearningResult:
    """A learnt sampler with its distances to the teacher, beside those of the closed form that it is compared with.

    `start` is the best closed form of all solvers and hand grids, by the training pairs.  `held_out` is the mean
    distance of pairs that nothing was chosen on, and `held_out_error` the standard error of its difference to
    `start_held_out`.  `tried` are all starts, and `taken` is the one that was learnt from to the end.  `calls` are
    network calls at any width; a backward pass counts as one.  `gflops` are theirs in all, NaN where the costs of the
    widths were not given.
    """

    sampler: LearntSampler
    start: LearntSampler
    start_name: str
    learnt: str
    distance: str
    widths: tuple[float, ...]
    train: float
    held_out: float
    held_out_error: float
    start_train: float
    start_held_out: float
    iterations: int
    calls: int
    gflops: float
    seconds: float
    history: tuple[Check, ...]
    taken: str = ""
    tried: tuple[TriedStart, ...] = ()

    @property
    def better(self) -> bool:
        """Whether the held-out distance is smaller than that of the closed form."""
        return self.held_out < self.start_held_out

    @property
    def summary(self) -> str:
        """One line of figures."""
        return (
            f"held-out distance {self.held_out:.4g} (training pairs {self.train:.4g}) against "
            f"{self.start_held_out:.4g} of {self.start_name}, after {self.iterations} iterations, "
            f"{self.calls} network calls and {self.seconds:.0f} s"
        )

    def accepted(self) -> LearntSampler:
        """Return the sampler.  Raises InputError with the figures when it is not better than the closed form."""
        if not self.better:
            raise InputError(f"the learnt sampler is not better than the closed form: {self.summary}; use that one")
        return self.sampler

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, without NaN."""
        content = asdict(self) | {"sampler": self.sampler.to_json(), "start": self.start.to_json()}
        return without_nan(content)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> LearningResult:
        """Return the result of `to_json`.  Raises InputError when something is missing."""
        try:
            given: dict[str, Any] = {name: math.nan if value is None else value for name, value in content.items()}
            given["sampler"] = LearntSampler.from_json(content["sampler"])
            given["start"] = LearntSampler.from_json(content["start"])
            given["widths"] = tuple(content["widths"])
            given["history"] = tuple(
                Check(c["iteration"], math.nan if c["train"] is None else c["train"], c["stopping"])
                for c in content["history"]
            )
            given["tried"] = tuple(map(TriedStart.from_json, content.get("tried", ())))
            return LearningResult(**given)
        except (KeyError, TypeError) as error:
            raise InputError(f"not the result of learning a sampler ({error}); learn it again") from error


def without_nan(content: Any) -> Any:
    """Return JSON values with null for NaN."""
    if isinstance(content, dict):
        return {name: without_nan(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and content != content else content
