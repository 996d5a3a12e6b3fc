"""Train the small supernets of the tables that carried searches are measured on.

Run it with `python -m benchmarks.transfer_supernets`; `benchmarks.fit_surrogate --run runs/NAME` makes the table of
each.  They are two halves of Fashion-MNIST's classes at 8x8 pixels, which have no image in common.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np

from stepfront.search.config import settings_from
from stepfront.search.driver.train import run_training
from stepfront.search.presets import preset

HALVES = {"fashion-0-4": range(5), "fashion-5-9": range(5, 10)}
"""Classes of Fashion-MNIST by name of the table: tops and trousers, and shoes, bags and shirts."""


def write_half(source: Path, classes: range, path: Path) -> None:
    """Write the images of some classes, of the four idx files in `source`, as one npz file."""
    arrays = {}
    for split, name in (("train", "train"), ("test", "t10k")):
        labels = np.frombuffer(gzip.decompress((source / f"{name}-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
        pixels = gzip.decompress((source / f"{name}-images-idx3-ubyte.gz").read_bytes())[16:]
        chosen = np.isin(labels, classes)
        arrays[f"{split}_images"] = np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28)[chosen]
        arrays[f"{split}_labels"] = labels[chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def train_half(name: str, source: Path, runs: Path) -> None:
    """Train the supernet of a half, with the network and the training of the digits, unless it exists."""
    path = runs / name / "images.npz"
    if not path.exists():
        write_half(source, HALVES[name], path)
    settings = settings_from(
        preset("digits"),
        [
            f"name={name}",
            f"directory={runs}",
            "data.format=npz",
            f"data.path={path}",
            "data.size=8",
            "data.limit=8000",
            "training.rule=sandwich",  # as the pages were measured
            "training.steps=1500",
            "data.labels=map",
            "features.name=degradations",
            "tracking.uri=null",
        ],
    )
    run_training(settings, False, lambda report: None, lambda line: print(line, flush=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=Path("../shared/data/fashion-mnist"), help="the four idx files")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs")
    given = parser.parse_args()
    for name in HALVES:
        train_half(name, given.source, given.runs)


if __name__ == "__main__":
    main()
