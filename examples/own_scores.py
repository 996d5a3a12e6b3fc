"""Search with scores of your own beside FID, over the supernet that quickstart.py trained in the same form.

    PYTHONPATH=examples python examples/own_scores.py [--small]

Three functions from images to a number: a distance to given targets in the manner of LPIPS, a classifier's accuracy,
and PSNR as for restoration.  The first two become objectives, the third is computed when the front is confirmed.
docs/plugins.md describes the contract.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import quickstart
import torch
import torch.nn.functional as F
from torch import Tensor

import stepfront

SCORES = [
    {"name": "perceptual", "function": "own_scores:perceptual_distance"},
    {"name": "accuracy", "function": "own_scores:accuracy", "goal": "higher"},
    {"name": "psnr", "function": "own_scores:psnr", "goal": "higher", "use": "confirm"},
]


@cache
def targets() -> Tensor:
    """Return the given targets, uint8 [N, 1, 8, 8]: here 256 pictures of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    return torch.from_numpy(np.rint(load_digits().images[:256] * (255 / 16)).astype(np.uint8))[:, None]


def deep_features(images: Tensor) -> list[Tensor]:
    """Return features [N, C, H, W] of unit length per place, at two scales, of a fixed random network.

    LPIPS does the same with a trained network (Zhang et al. 2018); put yours here.
    """
    generator = torch.Generator().manual_seed(0)
    x, found = images.float() / 127.5 - 1, []
    for channels in (16, 32):
        weights = torch.randn(channels, x.shape[1], 3, 3, generator=generator) / (3 * x.shape[1] ** 0.5)
        x = F.relu(F.conv2d(x, weights, padding=1))
        found.append(F.normalize(x, dim=1))
        x = F.avg_pool2d(x, 2)
    return found


def perceptual_distance(images: Tensor) -> float:
    """Return the mean distance of each image to the nearest target; lower is better."""
    pairs = zip(deep_features(images), deep_features(targets()), strict=True)
    distances = sum(torch.cdist(a.flatten(1), b.flatten(1)).square() / a[0, 0].numel() for a, b in pairs)
    return float(torch.as_tensor(distances).min(dim=1).values.double().mean())


@cache
def classifier() -> object:
    """Return a classifier of the digits; put yours here."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    digits = load_digits()
    return LogisticRegression(max_iter=300).fit(digits.images.reshape(-1, 64) / 16, digits.target)


def accuracy(images: Tensor, labels: np.ndarray | None) -> float:
    """Return the share of images that are classified as they were asked for; higher is better.

    A supernet without classes was asked for nothing: then it is the mean probability of the most likely class.
    """
    chances = classifier().predict_proba(images.flatten(1).numpy() / 255)  # type: ignore[attr-defined]
    return float(chances.max(axis=1).mean() if labels is None else (chances.argmax(axis=1) == labels).mean())


def psnr(images: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio to the nearest target, in dB; higher is better.

    Where image i restores target i, compare row by row: images come in the order of their starting noise.
    """
    pixels, wanted = images.flatten(1).double(), targets().flatten(1).double()
    error = torch.cdist(pixels, wanted).square().min(dim=1).values / pixels.shape[1]
    return float(10 * torch.log10(255**2 / error.clamp(min=1e-3)).mean())


def main(small: bool) -> None:
    """Search with the scores, confirm the front, and print both."""
    name = quickstart.run_name(small)
    own = ["name=own-scores-small" if small else "name=own-scores", f"scores={SCORES}", "tracking.uri=null"]
    shared = [f"supernet=runs/{name}/supernet", *([*quickstart.SMALL, quickstart.SMALL_SOLVER] if small else [])]
    judge = ["confirm.features.examine=skip", "confirm.features.training_steps=5"]
    confirm = ["confirm.images=32", "confirm.seeds=2", "confirm.max_seeds=2", *judge]
    overrides = [*own, *shared, *(confirm if small else [])]
    search = stepfront.run_search(stepfront.load_settings(quickstart.CONFIG, overrides), publish=False)
    search.confirm()
    columns = ["trial", "plan", "gflops", "fid", "perceptual", "accuracy", "accuracy_confirmed", "psnr_confirmed"]
    print(search.front()[columns].to_string(index=False))
    print(f"report: {search.report()}")


if __name__ == "__main__":
    main(small="--small" in sys.argv[1:])
