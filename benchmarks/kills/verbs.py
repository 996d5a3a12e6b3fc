"""Define the verbs that are interrupted: what is there before, how they are called, and what they make."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.kills.contents import Contents, folder_contents, mlflow_contents, page_contents, table_contents
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import BASELINES, CONFIRM, FRONT, TRAINING, TRIALS
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.interop.unet2d import export_unet2d
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import save_supernet

PLACE = Path("runs") / "damage"
"""The run, below the folder in which everything happens."""

CONFIRMED = ["plan", "sampler", "noise_seed", "images", "fid", "second_fid"]


@dataclass
class Verb:
    """A verb, called in a folder with `c.yaml` and a finished search in runs/damage.

    `words` name paths below that folder by `./`.  `then` is the call that follows an interrupted one; None: the same.
    `made` returns what is compared after that call, and `whole` what has to be complete or missing before it.
    `checked` says whether `stepfront doctor` must find nothing then.
    """

    name: str
    words: Sequence[str]
    made: Callable[[Path], Contents]
    whole: Callable[[Path], Contents] = lambda root: {}
    before: Callable[[Path], None] = lambda root: None
    then: Sequence[str] | None = None
    checked: bool = True


def _without_mlflow(root: Path) -> None:
    (root / "runs" / "mlflow.db").unlink()
    shutil.rmtree(root / "runs" / "mlartifacts", ignore_errors=True)
    (root / PLACE / "search" / "mlflow.json").unlink(missing_ok=True)


def _untrained(root: Path) -> None:
    """Delete the supernet, and keep the feature network, which takes long to train."""
    _without_mlflow(root)
    supernet = root / PLACE / "supernet"
    (supernet / "mlflow.json").unlink(missing_ok=True)
    for name in ("supernet.json", "supernet.safetensors", "checkpoint.safetensors", "training.parquet"):
        (supernet / name).unlink()
    (supernet / "checksums.json").unlink()
    shutil.rmtree(supernet / "samples")


def _trained(root: Path) -> Contents:
    supernet = root / PLACE / "supernet"
    losses = [name for name in read_table(supernet / TRAINING).columns if name.startswith("loss/")]
    return {
        "table": table_contents(supernet / TRAINING, ["step", *losses]),
        "weights": folder_contents(supernet).get("supernet.safetensors"),
        "mlflow": mlflow_contents(root / "runs"),
    }


def _with_model(root: Path) -> None:
    """Write an untrained UNet2DModel to be imported."""
    network = NetworkSettings(base=8, multipliers=(1, 2), groups=2, widths=(0.5, 1.0), frequencies="diffusers")
    torch.manual_seed(0)
    save_supernet(Supernet(network, 1, 8), root / "source", DiffusionSettings(), "none", "none")
    export_unet2d(root / "source", root / "unet2d")


def _confirmed(root: Path) -> Contents:
    search = root / PLACE / "search"
    return {
        "scores": table_contents(search / CONFIRM, CONFIRMED),
        "front": table_contents(search / FRONT, ["trial", "fid_confirmed", "fid_low", "fid_high"]),
    }


def _trials(root: Path) -> Contents:
    """Return what must not be there twice, and whether table and front agree."""
    trials = read_table(root / PLACE / "search" / TRIALS)
    complete: Any = trials[trials["state"] == "complete"]
    front: pd.DataFrame = read_table(root / PLACE / "search" / FRONT)
    stored = [name for name in mlflow_contents(root / "runs") if name.endswith(" again")]
    return {
        "genomes twice": int(complete["genome"].duplicated().sum()) if "genome" in complete else 0,
        "numbers twice": int(trials["trial"].duplicated().sum()),
        "front within": bool(set(front["trial"]) <= set(complete["trial"])),
        "in MLflow twice": stored,
    }


def _with_copy(root: Path) -> None:
    shutil.copytree(root / PLACE, root / f"{PLACE}-2")


RUN = f"./{PLACE}"
VERBS = (
    Verb(
        "export",
        ("export", RUN, "--out", "./out"),
        lambda root: folder_contents(root / "out"),
        lambda root: folder_contents(root / "out"),
    ),
    Verb(
        "import",
        ("import", "diffusers", "./unet2d", "--out", "./imported", "--widths", "0.5,1"),
        lambda root: folder_contents(root / "imported"),
        lambda root: folder_contents(root / "imported"),
        _with_model,
    ),
    Verb("train", ("train", "./c.yaml"), _trained, before=_untrained, checked=False),
    Verb("register", ("register", RUN), lambda root: mlflow_contents(root / "runs")),
    Verb("sync", ("sync", RUN), lambda root: mlflow_contents(root / "runs"), before=_without_mlflow),
    Verb(
        "report",
        ("report", RUN),
        lambda root: {"page": page_contents(root / PLACE / "search" / "report.html")},
        lambda root: {"page": page_contents(root / PLACE / "search" / "report.html")},
    ),
    Verb(
        "compare",
        ("compare", RUN, f"{RUN}-2", "--out", "./compare.html"),
        lambda root: {"page": page_contents(root / "compare.html")},
        lambda root: {"page": page_contents(root / "compare.html")} if (root / "compare.html").exists() else {},
        _with_copy,
    ),
    Verb("confirm", ("confirm", RUN, "--images", "48"), _confirmed),
    Verb(
        "baselines",
        ("baselines", RUN, "--methods", "uniform,random", "--evaluations", "3"),
        lambda root: {"plans": table_contents(root / PLACE / "search" / BASELINES, ["method", "plan", "fid"])},
    ),
    Verb("fit", ("fit", RUN, "--point", "knee"), _trials),
    Verb("extend", ("extend", RUN, "--trials", "2"), _trials, then=("resume", RUN)),
)
