"""Name the supernets that are compared, and train those that are missing from the settings in configs/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.gpu.training import save_averaged
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import load_data
from stepfront.trainers.networks.card import CARD_FILE
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE
from stepfront.trainers.training.trainer import train_supernet
from stepfront.trainers.validation import validate

ROOT = Path(__file__).parents[2]
DATA = Path("../shared/data")

Change = dict[str, dict[str, Any]]

SANDWICH = {"rule": "sandwich"}
"""The rule of the supernets that the pages were measured on; the presets have trained by another since."""

SUPERNETS: dict[str, tuple[str, Change]] = {
    # name: settings file, and what differs from it
    "digits": ("digits.yaml", {"training": SANDWICH | {"steps": 1500}}),
    "fashion-mnist-16": (
        "fashion_mnist.yaml",
        {"data": {"path": "fashion-mnist"}, "training": SANDWICH | {"steps": 3000}},
    ),
    "fashion-mnist-28": (
        "fashion_mnist.yaml",
        {
            "data": {"path": "fashion-mnist", "size": None},
            "network": {"attention": [7]},
            "training": SANDWICH | {"steps": 4000, "batch": 128},
        },
    ),
    "cifar10-small": (
        "cifar10.yaml",
        {
            "data": {"format": "folder", "path": "cifar10-jpg/cifar10-jpg.zip"},
            "network": {"base": 32, "multipliers": [1, 2, 2], "blocks": 1, "attention": [8], "dropout": 0.0}
            | {"group_channels": 4, "skips": "segment", "frequencies": "plain"},
            "training": {"steps": 8000, "batch": 128, "lr": 1.0e-3, "warmup": 200, "decay": True, "ema": 0.999}
            | {"precision": "auto"},
        },
    ),
    "cifar10-16": (  # what two cores train and learn on
        "cifar10.yaml",
        {
            "data": {"format": "folder", "path": "cifar10-jpg/cifar10-jpg.zip", "size": 16},
            "network": {"base": 16, "multipliers": [1, 2, 2], "blocks": 1, "attention": [4], "dropout": 0.0}
            | {"group_channels": 4, "skips": "segment", "frequencies": "plain"},
            "training": {"steps": 1500, "batch": 64, "lr": 2.0e-3, "warmup": 100, "decay": True, "ema": 0.99},
        },
    ),
}
"""The supernets of docs/bench-solvers.md, by name.  cifar10-small has 250 MMACs per call; DDSM's network has 6,222."""


def settings_of(name: str, data: Path = DATA, tiny: bool = False) -> TrainerSettings:
    """Return the settings of a supernet whose images lie in `data`; `tiny` takes few images and steps."""
    file, change = SUPERNETS[name]
    content = yaml.safe_load((ROOT / "configs" / file).read_text(encoding="utf-8"))
    groups = {key: content.get(key, {}) | change.get(key, {}) for key in ("data", "network", "diffusion", "training")}
    if "path" in groups["data"]:
        groups["data"]["path"] = str(data / groups["data"]["path"])
    groups["training"] |= {"samples_every": 0, "checkpoint_every": 500}
    if torch.cuda.is_available():
        groups["training"]["engine"] = "cuda_graphs"
    if tiny:
        groups["data"] |= {"limit": 500}
        groups["training"] |= {"steps": 4, "batch": 8, "warmup": 1}
    return validate(TrainerSettings, groups)


def ensure_supernet(name: str, directory: Path, data: Path = DATA, tiny: bool = False, stop: bool = False) -> None:
    """Train the supernet unless `directory` holds it; an interrupted training continues.

    With `stop`, an interrupted training ends: the averaged weights of its last checkpoint are the supernet.
    """
    if (directory / CARD_FILE).exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    settings = settings_of(name, data, tiny)
    images = load_data(settings.data)
    if stop and (directory / CHECKPOINT_FILE).exists():
        save_averaged(settings, images, directory)
    else:
        train_supernet(settings, images, directory)
