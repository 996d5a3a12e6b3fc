"""Compute a user's own scores of images: functions from images to a number, named in the settings."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stepfront.errors import InputError, first_line
from stepfront.plugins import SCORES
from stepfront.trainers.data import Labels


class ScoreFunction(Protocol):
    """The contract of a score: all images of a plan in one call, a number out.

    `images` are uint8 [N, C, H, W] on the CPU, as an image file holds them.  The function must be deterministic, and
    leave the images as they are.  It may have the further parameters `labels`, int64 [N], the classes that the images
    were sampled for (None without classes), and `noise_seed`, the seed that they were sampled with.
    """

    def __call__(self, images: Tensor, /) -> float:
        """Return the score of all images together."""


@dataclass(frozen=True)
class UserScore:
    """A score by its name and the import path of its function."""

    name: str
    function: str

    def load(self) -> Callable[..., Any]:
        """Import the function.  Raises InputError when it can't be imported or called with images."""
        found = SCORES.load(self.function)
        try:
            parameters = inspect.signature(found).parameters
        except (TypeError, ValueError):  # some built-in functions have none
            return found
        needed = [p for p in parameters.values() if p.default is p.empty and p.kind not in _COLLECTING]
        unknown = [p.name for p in needed[1:] if p.name not in CONTEXT]
        if not parameters or unknown:
            wrong = f"needs {', '.join(unknown)}" if unknown else "takes no images"
            raise InputError(
                f"the score {self.name!r} ({self.function}) {wrong}; a score takes images, and of "
                f"{', '.join(CONTEXT)} those that it names"
            )
        return found


CONTEXT = ("labels", "noise_seed")
"""Parameters that a score may name beside the images."""
_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def compute_scores(
    scores: Mapping[str, Callable[..., Any]], images: Tensor, labels: Labels | None, noise_seed: int
) -> tuple[dict[str, float], str]:
    """Return the finite values by name, and why the first of the others has none; "" where all have one."""
    found: dict[str, float] = {}
    for name, function in scores.items():
        try:
            value = float(function(images, **_context(function, labels, noise_seed)))
        except Exception as error:  # a user's function can raise anything
            return found, f"the score {name!r} failed ({type(error).__name__}: {first_line(error)})"
        if not math.isfinite(value):
            return found, f"the score {name!r} is {value}, which is not finite"
        found[name] = value
    return found, ""


def check_scores_on(scores: Sequence[UserScore], images: np.ndarray, count: int, labels: Labels | None) -> None:
    """Compute each score once on real images uint8 [N, C, H, W], repeated to `count`.

    Raises InputError where a score can't be imported, raises an error, is not finite, writes to the images, or changes
    when it is repeated.
    """
    rows = np.arange(count) % len(images)
    pixels, classes = torch.from_numpy(images[rows]), None if labels is None else labels[rows]
    for score in scores:
        functions = {score.name: score.load()}
        given = pixels.clone()
        first, problem = compute_scores(functions, given, classes, 0)
        if problem:
            raise InputError(f"{problem} on {count} real images; mend {score.function}, or leave it out of `scores`")
        if not torch.equal(given, pixels):  # the next score would get them changed
            raise InputError(f"the score {score.name!r} writes to the images; let {score.function} change a copy")
        if compute_scores(functions, pixels.clone(), classes, 0)[0] != first:
            raise InputError(
                f"the score {score.name!r} gives two values for the same images; make {score.function} deterministic"
            )


def _context(function: Callable[..., Any], labels: Labels | None, noise_seed: int) -> dict[str, Any]:
    try:
        named = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    return {key: value for key, value in (("labels", labels), ("noise_seed", noise_seed)) if key in named}
