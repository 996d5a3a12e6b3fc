"""Compare feature sets as judges: known harm on held-out real images, floors, spreads, and plans of a supernet.

`make bench-judges` writes docs/judges.md.  Fashion-MNIST and CIFAR-10 are left out, with a line, where their files are
missing: `python -m benchmarks.judges --data FOLDER` names the folder that holds `fashion-mnist` and `cifar10-jpg`.

A run can measure a part; the page keeps the rest.  To add a network from a file on one dataset:

    python -m benchmarks.judges --features-file resnet20=runs/resnet20.pt --candidates resnet20 --parts CIFAR-10
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.blurred_plans import STEPS, blurred_plans
from benchmarks.judges_page import BLURRED, PAGE, update_page
from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings, FeatureSettings
from stepfront.trainers.data import ImageData, load_data, to_float
from stepfront.trainers.metrics.examination import examine
from stepfront.trainers.metrics.features import FeatureNetwork, check_features, prepare_features
from stepfront.trainers.metrics.fid import Moments, Reference
from stepfront.trainers.metrics.harm import HARMS

CPU = torch.device("cpu")
DRAWS = 8
COUNTS = (256, 512, 1024, 4096)
CIFAR_STRIDE = 3
"""Every third training image of CIFAR-10 is used, as all would take an hour on one core."""
CANDIDATES = ("degradations", "random", "classifier", "autoencoder", "pixels")

Judge = tuple[FeatureNetwork, Reference]


@dataclass(frozen=True)
class Case:
    """A dataset under a name, and images of another dataset in its shape."""

    name: str
    data: ImageData
    foreign: Tensor


def main() -> None:
    """Measure the judges on the datasets, and write the page."""
    given = arguments()
    torch.set_num_threads(1)
    files = dict(given.features_file)
    names = given.candidates.split(",") if given.candidates else [*CANDIDATES, *files]
    if unknown := set(names) - {*CANDIDATES, *files}:
        raise SystemExit(f"unknown candidates {sorted(unknown)}; possible: {', '.join([*CANDIDATES, *files])}")
    blurred = pd.DataFrame(blurred_plans(given.training_steps) if is_wanted(BLURRED, given.parts) else [])
    print(blurred.to_string(), flush=True)
    rows = [row for case in cases(given.data, given.parts) for row in measure(case, names, files)]
    print(pd.DataFrame(rows).to_string())
    update_page(given.out, pd.DataFrame(rows, columns=None if rows else ["dataset"]), blurred, missing(given.data))


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of fashion-mnist, cifar10-jpg"
    )
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write (default: %(default)s)")
    parser.add_argument(
        "--features-file",
        action="append",
        default=[],
        type=named_file,
        metavar="NAME=FILE",
        help="further candidate: a feature file (.pt, .pt2, .pth) under a name; may be repeated",
    )
    parser.add_argument(
        "--candidates", default="", metavar="NAMES", help=f"comma-separated (default: {','.join(CANDIDATES)} and files)"
    )
    parser.add_argument(
        "--parts", nargs="+", default=[], metavar="PART", help="first letters of sections to measure (default: all)"
    )
    parser.add_argument(
        "--training-steps",
        nargs="+",
        type=int,
        default=STEPS,
        metavar="N",
        help="training steps of the supernets whose plans are blurred (default: %(default)s)",
    )
    return parser.parse_args()


def named_file(text: str) -> tuple[str, Path]:
    """Return name and file of NAME=FILE."""
    name, _, path = text.partition("=")
    if not name or not path or name in CANDIDATES:
        raise argparse.ArgumentTypeError(f"{text!r} given; NAME=FILE needed, with a name of its own")
    return name, Path(path)


def is_wanted(section: str, parts: Sequence[str]) -> bool:
    """Return whether a section of the page is measured."""
    return not parts or any(section.lower().startswith(part.lower()) for part in parts)


def cases(folder: Path, parts: Sequence[str]) -> Iterator[Case]:
    """Yield the wanted datasets whose files exist."""
    if is_wanted("digits", parts):
        digits = load_data(DataSettings())
        yield Case("digits", digits, mirrored(digits))
    fashion = folder / "fashion-mnist"
    if fashion.is_dir() and is_wanted("Fashion-MNIST", parts):
        data = load_data(DataSettings(format="idx", path=str(fashion), size=16))
        yield Case("Fashion-MNIST 16", data, mirrored(data))
        yield Case("Fashion-MNIST 16, no labels", replace(data, labels=None, held_out_labels=None), mirrored(data))
        two = of_classes(data, (2, 6))
        yield Case("Fashion-MNIST 16, 2 classes", two, mirrored(two))
    cifar = folder / "cifar10-jpg" / "cifar10-jpg.zip"
    if cifar.is_file() and is_wanted("CIFAR-10", parts):
        data = every(load_data(DataSettings(format="folder", path=str(cifar))), CIFAR_STRIDE)
        yield Case(f"CIFAR-10, {len(data.images):,} training images", data, mirrored(data))


def missing(folder: Path) -> list[str]:
    """Return the datasets whose files do not exist."""
    places = {"Fashion-MNIST": folder / "fashion-mnist", "CIFAR-10": folder / "cifar10-jpg" / "cifar10-jpg.zip"}
    return [name for name, place in places.items() if not place.exists()]


def mirrored(data: ImageData) -> Tensor:
    """Return the held-out images as negatives that stand on their heads: images of another set in the same shape."""
    return -to_float(data.held_out_images).flip(2)


def every(data: ImageData, stride: int) -> ImageData:
    """Return the data with every `stride`-th training image, and all held-out images."""
    labels = None if data.labels is None else data.labels[::stride]
    return replace(data, images=data.images[::stride], labels=labels, fingerprint=f"{data.fingerprint[:56]}{stride:08}")


def of_classes(data: ImageData, classes: tuple[int, ...]) -> ImageData:
    """Return the images of some classes, with labels 0, 1, ..."""
    assert data.labels is not None
    assert data.held_out_labels is not None
    new = {label: number for number, label in enumerate(classes)}
    train, held = np.isin(data.labels, classes), np.isin(data.held_out_labels, classes)
    return replace(
        data,
        images=data.images[train],
        labels=np.array([new[int(label)] for label in data.labels[train]]),
        held_out_images=data.held_out_images[held],
        held_out_labels=np.array([new[int(label)] for label in data.held_out_labels[held]]),
        fingerprint=f"{data.fingerprint[:56]}{'-'.join(map(str, classes))}",
    )


def measure(case: Case, names: Sequence[str], files: Mapping[str, Path]) -> Iterator[dict[str, object]]:
    """Yield one row per judge."""
    for name in names:
        if name == "classifier" and case.data.labels is None:
            continue
        begin = time.perf_counter()
        with TemporaryDirectory() as folder:
            try:
                judge = make_judge(name, case.data, Path(folder), files)
            except InputError as error:
                print(f"{case.name}: {name} is left out: {error}", flush=True)
                continue
        seconds = time.perf_counter() - begin
        row = {"dataset": case.name, "features": name, "measured": time.strftime("%Y-%m-%d")}
        yield row | {"seconds": round(seconds, 1)} | columns(judge, case)


def make_judge(name: str, data: ImageData, folder: Path, files: Mapping[str, Path]) -> Judge:
    """Return the features and their statistics of the training images.  Raises InputError for images that don't fit."""
    if name not in ("autoencoder", "pixels"):
        epochs = 10 if len(data.images) < 10_000 else 3
        path = str(files[name]) if name in files else None
        settings = FeatureSettings(name=name, path=path, classifier_epochs=epochs)
        check_features(data, settings)
        packed, reference = prepare_features(data, settings, folder, CPU)
        return packed.unpack(CPU), reference
    function = (lambda levels: levels.flatten(1) / 127.5 - 1) if name == "pixels" else autoencoder(data)
    features = FeatureNetwork(name, function, CPU)
    moments = Moments.of(features(to_float(part)) for part in np.array_split(data.images, len(data.images) // 500 + 1))
    return features, Reference(moments.mean, moments.covariance, moments.count, name, "", data.fingerprint)


def autoencoder(data: ImageData, size: int = 64, steps: int = 800) -> Callable[[Tensor], Tensor]:
    """Return the code [B, 64] of a small autoencoder trained on the images."""
    pixels = data.images[0].size
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 256), nn.ReLU(), nn.Linear(256, size))
        decoder = nn.Sequential(nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, pixels))
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
        for _ in range(steps):
            x = to_float(data.images[torch.randint(len(data.images), (128,)).numpy()])
            loss = (decoder(encoder(x)) - x.flatten(1)).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return lambda levels: encoder(levels / 127.5 - 1)


def columns(judge: Judge, case: Case) -> dict[str, object]:
    """Return what one judge says of one dataset; scores are multiples of its floor."""
    features, reference = judge
    result = examine(features, reference, case.data)
    found: dict[str, object] = {"D": result.dimensions, "participation ratio": round(result.ratio, 1)}
    held = to_float(case.data.held_out_images)
    for count in COUNTS:
        found[f"floor, {count}"] = floors(judge, held, count)
    for harm in HARMS:
        found[harm] = " ".join(f"{score / result.floor:.1f}" for score in result.scores[harm])
        rises = all(a < b for a, b in zip([result.floor, *result.scores[harm]], result.scores[harm], strict=False))
        found[harm] = str(found[harm]) + ("" if rises else " (order wrong)")
    count = min(512, len(held) // 2)
    drawn = held[torch.randperm(len(held), generator=torch.Generator().manual_seed(1))]
    base = distance(judge, drawn[:count])
    labels = case.data.held_out_labels
    if labels is not None and case.data.classes > 2:
        one, half = (held[torch.from_numpy(labels > most)] for most in (0, (case.data.classes - 1) // 2))
        found["a class missing"] = ratio(judge, one[:count], base)
        found["half of the classes missing"] = ratio(judge, half[:count], base)
    found["16 copies of each"] = ratio(judge, drawn[: max(8, count // 16)].repeat(16, 1, 1, 1), base)
    found["a tenth of another set"] = ratio(
        judge, torch.cat([drawn[: count - count // 10], case.foreign[: count // 10]]), base
    )
    train = to_float(case.data.images[np.random.default_rng(0).permutation(len(case.data.images))[:count]])
    found["training images"] = ratio(judge, train, base)
    found["examination"] = "passed" if result.passed else "; ".join(result.failures)
    return found


def floors(judge: Judge, held: Tensor, count: int) -> str:
    """Return mean and relative spread of the distance of real images over draws; empty where too few are held out."""
    if count > len(held):
        return ""
    generator = torch.Generator().manual_seed(0)
    draws = [distance(judge, held[torch.randperm(len(held), generator=generator)[:count]]) for _ in range(DRAWS)]
    return f"{np.mean(draws):.3g} ± {np.std(draws, ddof=1) / np.mean(draws):.0%}"


def ratio(judge: Judge, images: Tensor, base: float) -> str:
    """Return the score of images as a multiple of real images' score."""
    return f"{distance(judge, images) / base:.1f}"


def distance(judge: Judge, images: Tensor) -> float:
    """Return the Frechet distance of images [N, C, H, W] in [-1, 1]."""
    features, reference = judge
    return reference.distance(Moments.of(features(part) for part in images.split(500)))


if __name__ == "__main__":
    main()
