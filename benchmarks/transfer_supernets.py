"""Train the small supernets of the published tables.

Run it with `python -m benchmarks.transfer_supernets`; `benchmarks.fit_surrogate --run runs/NAME` makes the table of
each, and `benchmarks.enumerate` one of measured plans.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stepfront.errors import InputError
from stepfront.files import write_atomically
from stepfront.search.config import RunSettings, settings_from
from stepfront.search.driver.train import run_training
from stepfront.search.presets import preset

HALVES = {"fashion-0-4": range(5), "fashion-5-9": range(5, 10)}
"""Classes of Fashion-MNIST by name of the table: tops and trousers, and shoes, bags and shirts; no image in common."""

SANDWICH = ("training.rule=sandwich", "tracking.uri=null", "features.name=degradations")
AT_8 = ("data.size=8", "training.steps=1500", *SANDWICH)
NPZ = ("data.format=npz", "data.limit=8000", "data.labels=map")

CIFAR10 = (
    "data.format=folder", "data.path={data}/cifar10-jpg/cifar10-jpg.zip", "data.flip=true",
    "network.group_channels=4", "network.skips=segment", "network.frequencies=plain",
    "training.warmup=100", "training.decay=true", "training.ema=0.99",
)  # fmt: skip

SUPERNETS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    # name: preset, and what differs from it; {data} and {run} are folders
    "digits-sandwich": ("digits", ("training.steps=1500", *SANDWICH)),
    **dict.fromkeys(HALVES, ("digits", ("data.path={run}/images.npz", *NPZ, *AT_8))),
    "fashion-8": ("digits", ("data.format=idx", "data.path={data}/fashion-mnist", *AT_8)),
    "fashion-16": ("fashion_mnist", ("data.path={data}/fashion-mnist", "training.steps=1500", *SANDWICH)),
    "fashion-28": (
        "fashion_mnist",
        ("data.path={data}/fashion-mnist", "data.size=null", "network.attention=[7]", "training.steps=600", *SANDWICH),
    ),
    "cifar10-16": ("fashion_mnist", ("training.steps=1500", *CIFAR10, *SANDWICH)),
}
"""Supernets by name: those of digits at 8x8 pixels, those of Fashion-MNIST's config at 16x16 and 28x28."""


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

    def write(place: Path) -> None:
        with open(place, "wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(path, write)


def supernet_settings(name: str, data: Path, runs: Path) -> RunSettings:
    """Return the settings of a supernet whose data sets lie in `data`, and whose run lies in `runs`."""
    base, changes = SUPERNETS[name]
    named = [f"name={name}", f"directory={runs}"]
    return settings_from(preset(base), named + [change.format(data=data, run=runs / name) for change in changes])


def supernet_source(name: str) -> str:
    """Return what made the supernet of a run of that name."""
    return f"{name} of benchmarks/transfer_supernets.py" if name in SUPERNETS else f"configs/{name}.yaml"


def train(name: str, data: Path, runs: Path) -> None:
    """Train a supernet unless it exists; an interrupted training continues."""
    images = runs / name / "images.npz"
    if name in HALVES and not images.exists():
        write_half(data / "fashion-mnist", HALVES[name], images)
    settings = supernet_settings(name, data, runs)
    run_training(settings, False, lambda report: None, lambda line: print(line, flush=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SUPERNETS)}; default: all")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in SUPERNETS]:
        parser.error(f"no supernet named {', '.join(unknown)} (of {', '.join(SUPERNETS)})")
    try:
        for name in given.names or SUPERNETS:
            train(name, given.data, given.runs)
    except (InputError, OSError) as error:
        raise SystemExit(f"can't train {name}: {error}") from error


if __name__ == "__main__":
    main()
