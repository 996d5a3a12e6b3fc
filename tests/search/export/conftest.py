"""Points of a front over random networks, without a search: plain, with noise, learnt, with classes, with reuse."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from stepfront.search.export.program import FrontPoint
from stepfront.tables.schema import NOT_CONFIRMED
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import save_supernet
from stepfront.trainers.variant import parse_variants

TIMES, WIDTHS = (950.0, 700.0, 450.0, 200.5, 0.0), (0.5, 1.0, 0.0, 0.25, 1.0)
LITTLE_NOISE = (300.0, 220.0, 150.0, 80.5, 0.0)  # begun there, and clipped, half of the pixels are grey
LEARNT = LearntSampler(
    "dpmpp_2m",
    (900.0, 500.5, 99.0),
    (880.0, 510.0, 99.0),
    ((0.01, 0.0, 0.0), (0.02, -0.01, 0.0), (0.0, 0.01, 0.03)),
    ((0.02, 0.0, 0.0), (0.0, 0.03, 0.0), (-0.01, 0.0, 0.02)),
)
PLANS = {
    "plain": Plan(TIMES, WIDTHS, "ddim"),
    "noisy": Plan(TIMES, WIDTHS, "ddpm"),
    "flow": Plan(TIMES, WIDTHS, "ddim"),  # its networks predict a velocity
    "learnt": Plan(LEARNT.times, (0.5, 1.0, 0.25), LEARNT.solver, LEARNT),
    "classes": Plan(TIMES, WIDTHS, "ddpm"),
    "reuse": Plan.of(TIMES, parse_variants("1x0.50 1x0.50r 1x1.00 2x1.00r"), "ddim"),  # deep features
    "guided reuse": Plan.of(TIMES, parse_variants("1x0.50 1x0.50r 1x0.50ru 1x1.00u 1x1.00ru"), "ddim"),
    "own scales": Plan.of(LITTLE_NOISE, parse_variants("1x0.50 1x0.50rg40 1x0.50ru 1x1.00g12.5 1x1.00"), "ddim"),
}
WITH_CLASSES = ("classes", "guided reuse", "own scales")
COUNTS = (1, 0, 4)

WITHOUT_STEPFRONT = """
import sys
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"stepfront", "search", "trainers", "dashboards", "ray", "mlflow", "optuna"}:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Refuse())
"""
"""How a program begins that may use nothing of stepfront, as in an environment with diffusers and torch alone."""


def make_random_supernet(network: NetworkSettings, channels: int, diffusion: DiffusionSettings) -> Supernet:
    """Return a supernet of 8x8 images with random weights."""
    supernet = Supernet(network, channels, 8, diffusion).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, weights in supernet.named_parameters():
            spread = 0.3 if weights.ndim == 1 else weights[0].numel() ** -0.5
            shift = "norm" in key and key.endswith("weight")
            weights.copy_(spread * torch.randn(weights.shape, generator=generator) + shift)
    return supernet


def make_point(name: str, directory: Path) -> FrontPoint:
    """Return a point of 8x8 images: grey without classes, in color with them, of two channels for `latents`."""
    classes, plan = 3 if name in WITH_CLASSES else None, PLANS.get(name, PLANS["plain"])
    sizes = {"base": 8, "multipliers": (1, 2), "attention": (8,), "groups": 4, "group_channels": 2}
    network = NetworkSettings(**sizes, widths=(0.25, 0.5, 1.0), classes=classes)  # type: ignore[arg-type]
    diffusion = DiffusionSettings(prediction="flow" if name == "flow" else "epsilon")
    channels = 2 if name == "latents" else classes or 1
    supernet = make_random_supernet(network, channels, diffusion)
    counts = COUNTS if classes else ()
    card = save_supernet(supernet, directory, diffusion, "digits", "f" * 64, label_counts=counts)
    sampler = SimpleNamespace(clip=name in ("noisy", "own scales"), guidance=2.5 if classes else 1.0)
    problem: Any = SimpleNamespace(
        card=card,
        weights={key: value.numpy() for key, value in supernet.widest.state_dict().items()},
        settings=SimpleNamespace(sampler=sampler, evaluation=SimpleNamespace(batch=16)),
        decoder=None,
    )
    row = {"trial": 4, "plan": plan.runs, "solver": plan.solver, "features": "classifier", "fid": 9.25, "gflops": 0.5}
    row |= {"latency_ms": 1.0, "images": 512} | NOT_CONFIRMED
    row["learnt"] = "" if plan.learnt is None else plan.learnt.digest
    row |= {"fid_confirmed": 9.5, "fid_low": 9.0, "fid_high": 10.0, "confirm_images": 1024, "confirm_seeds": 5}
    facts = {"name": "tiny", "search_id": "abc", "dataset": "digits", "fingerprint": "f" * 64, "features": "classifier"}
    return FrontPoint(problem, facts | {"supernet_digest": card.digest}, pd.Series(row), plan)


@pytest.fixture(scope="session")
def points(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FrontPoint]:
    """Return the points by name."""
    return {name: make_point(name, tmp_path_factory.mktemp(name)) for name in PLANS}
