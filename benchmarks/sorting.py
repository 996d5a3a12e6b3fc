"""Measure what sorting channels by importance is worth when a full-width network is made slimmable.

Digits, four seeds: held-out losses by width directly after the import, and after a short fine-tuning by the sandwich
rule.  `python -m benchmarks.sorting` prints the table of docs/imports.md (about four minutes on one core).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from stepfront.trainers.config import DataSettings, TrainerSettings
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.interop.unet2d import export_unet2d, import_unet2d
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.training.trainer import train_supernet
from stepfront.trainers.training_settings import TrainingSettings

SEEDS = 4
FULL = NetworkSettings(base=32, multipliers=(1, 2), groups=8, group_channels=4, widths=(1.0,))


def main() -> None:
    """Print mean losses, and in how many seeds sorting was better."""
    torch.set_num_threads(1)
    data = load_data(DataSettings())
    rows = []
    with TemporaryDirectory() as directory:
        for seed in range(SEEDS):
            rows += _rows(data, Path(directory) / str(seed), seed)
    table = pd.DataFrame(rows)
    means = table.groupby(["after", "channels"]).mean().drop(columns="seed")
    print(means.to_string(float_format="{:.3f}".format))
    wide = table.pivot(index=["after", "seed"], columns="channels")
    for width in [column for column in table if column not in ("after", "channels", "seed")]:
        better = (wide[width]["sorted"] < wide[width]["as they were"]).groupby("after").sum()
        print(f"width {width}: sorted is better in {better.to_dict()} of {SEEDS} seeds")


def _rows(data: ImageData, directory: Path, seed: int) -> list[dict[str, object]]:
    pretraining = TrainingSettings(steps=500, batch=64, lr=2e-3, ema=0.99, seed=seed, device="cpu")
    train_supernet(TrainerSettings(network=FULL, training=pretraining), data, directory / "full")
    export_unet2d(directory / "full", directory / "unet")
    rows = []
    for name, sort in (("as they were", False), ("sorted", True)):
        start = directory / name
        network = import_unet2d(directory / "unet", start, sort=sort).network
        for after, lr in ((0, 1e-12), (60, 5e-4)):
            tuning = TrainingSettings(
                start=str(start), steps=max(1, after), batch=64, lr=lr, warmup=20, ema=0.98, held_out_images=179,
                seed=seed, device="cpu",
            )  # fmt: skip
            card = train_supernet(TrainerSettings(network=network, training=tuning), data, directory / f"{name}{after}")
            rows.append({"after": after, "channels": name, "seed": seed} | _losses(card))
    return rows


def _losses(card: SupernetCard) -> dict[str, float]:
    return {str(width): float(loss) for width, loss in card.made_with["held_out_losses"].items()}


if __name__ == "__main__":
    main()
