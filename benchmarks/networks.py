"""Train network families at equal training FLOPs on Fashion-MNIST, and measure every width.

Run it with `make bench-networks`; it replaces the section "Measured" of docs/networks.md.  Networks and scores lie in
--runs, and an interrupted call continues.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from benchmarks.arguments import positive
from benchmarks.markdown import markdown
from stepfront.files import write_text
from stepfront.search.records.versions import versions
from stepfront.trainers.config import DataSettings, FeatureSettings, SamplerSettings, TrainerSettings
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.evaluator import Evaluator, EvaluatorParts
from stepfront.trainers.inference.cost import WidthCost, count_width, measure_latencies
from stepfront.trainers.metrics.features import Judge, prepare_features
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.card import CARD_FILE
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.training.trainer import train_supernet
from stepfront.trainers.training_settings import TrainingSettings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "networks.md"
HEADING = "## Measured"
CPU = torch.device("cpu")
FIRST_NOISE_SEED = 10_000
SCORES_FILE = "scores.parquet"


class System(NamedTuple):
    """A family and how it is trained, as changes of the settings that all systems share."""

    network: Mapping[str, Any]
    training: Mapping[str, Any] = {}


SYSTEMS = {
    "unet": System({"family": "unet"}),
    "unet, distilled in frequencies": System({"family": "unet"}, {"distill_spectrum": 0.1}),
    "spectral": System({"family": "spectral"}),
    "spectral, distilled in frequencies": System({"family": "spectral"}, {"distill_spectrum": 0.1}),
    "ode, 1 inner step": System({"family": "ode", "inner_steps": 1}),
    "ode, 2 inner steps": System({"family": "ode", "inner_steps": 2}),
    "dit": System({"family": "dit", "dit": {"patch": 2, "hidden": 64, "depth": 3, "heads": 4}}),
}


def training_flops(costs: Mapping[float, WidthCost], batch: int) -> float:
    """Return the expected FLOPs of a step by the sandwich rule; a backward pass counts as two forward passes."""
    macs = [costs[width].macs for width in sorted(costs)]
    between = [float(np.mean(macs[1:-1]))] if len(macs) > 2 else []
    return 3 * 2 * batch * sum([macs[0], macs[-1], *between])


def network_settings(given: argparse.Namespace, system: System) -> dict[str, Any]:
    """Return the settings of a system's network: levels are those of all systems but the transformer."""
    levels = {"base": given.base, "multipliers": (1, 2, 2), "groups": 8, "group_channels": 2}
    shared = {} if system.network["family"] == "dit" else levels
    return {"widths": tuple(given.widths)} | shared | dict(system.network)


def trainer_settings(given: argparse.Namespace, system: System, data: DataSettings, seed: int) -> TrainerSettings:
    """Return the settings of a system: as many steps as its share of the FLOPs allows."""
    network = NetworkSettings(**network_settings(given, system))
    costs = {width: count_width(network, 1, given.size, width) for width in network.widths}
    steps = max(1, round(given.gflops * 1e9 / training_flops(costs, given.batch)))
    training = {"steps": steps, "batch": given.batch, "lr": given.lr, "warmup": steps // 10, "ema": 0.99, "seed": seed}
    training |= {"samples_every": 0, "device": "cpu", "held_out_images": 1024, "checkpoint_every": max(1, steps // 4)}
    return TrainerSettings(data=data, network=network, training=TrainingSettings(**(training | dict(system.training))))


def rows_of(
    name: str, settings: TrainerSettings, data: ImageData, judge: Judge, directory: Path, given: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Train a system unless it is trained, and yield one row per width."""
    seed = settings.training.seed
    if not (directory / CARD_FILE).exists():
        train_supernet(settings, data, directory)
    supernet, card = load_supernet(directory)
    costs = {width: count_width(card.network, 1, given.size, width) for width in supernet.widths}
    shape = (1, given.size, given.size)
    latencies = measure_latencies([supernet.subnet(width) for width in supernet.widths], shape, 64, CPU)
    weights = {key: value.detach().numpy() for key, value in supernet.widest.named_parameters()}
    evaluate = Evaluator(
        EvaluatorParts(card, weights, judge.features, judge.reference, SamplerSettings(), costs, batch=128)
    )
    times = tuple(map(float, time_grid(noise_schedule(card.diffusion), "quadratic", given.steps)))
    for width, latency in zip(supernet.widths, latencies, strict=True):
        scored = evaluate(Plan(times, (width,) * given.steps, "unipc_2"), given.images, FIRST_NOISE_SEED + seed)
        yield {
            "system": name,
            "width": width,
            "seed": seed,
            "training steps": settings.training.steps,
            "parameters": costs[width].parameters,
            "GFLOPs per call": costs[width].step_gflops,
            "ms per call": latency.ms,
            "held-out loss": float(card.made_with["held_out_losses"][str(width)]),
            "FID": scored.fid,
        }
        print(f"{name}, seed {seed}, width {width:g}: FID {scored.fid:.4g}", flush=True)


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the page: means over seeds, with the smallest and the largest FID where there are several."""
    grouped = rows.groupby(["system", "width"], sort=False)
    table = grouped.mean(numeric_only=True).drop(columns="seed").reset_index()
    fid, low, high = table["FID"], grouped["FID"].min().to_numpy(), grouped["FID"].max().to_numpy()
    spread = [f" ({a:.3g} to {b:.3g})" if b > a else "" for a, b in zip(low, high, strict=True)]
    formats = {
        "width": "{:g}",
        "training steps": "{:.0f}",
        "parameters": "{:,.0f}",
        "GFLOPs per call": "{:.4f}",
        "ms per call": "{:.3f}",
        "held-out loss": "{:.4f}",
    }
    for column, form in formats.items():
        table[column] = [form.format(value) for value in table[column]]
    table["FID"] = [f"{value:.4g}{note}" for value, note in zip(fid, spread, strict=True)]
    return table


def write_section(page: Path, lines: list[str]) -> None:
    """Replace the section "Measured" of the page, which is its last."""
    before = page.read_text(encoding="utf-8").partition(f"\n{HEADING}\n")[0]
    write_text(page, "\n".join([before.rstrip(), "", HEADING, "", *lines, ""]))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/fashion-mnist", help="folder of the four idx files")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench-networks"), help="folder of the supernets")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose section is replaced")
    parser.add_argument("--gflops", type=float, default=3e4, help="training GFLOPs per system and seed")
    parser.add_argument("--seeds", type=positive, default=3, help="trainings per system")
    parser.add_argument("--size", type=int, default=28, help="side of the images in pixels")
    parser.add_argument("--base", type=int, default=16, help="network.base")
    parser.add_argument("--widths", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="network.widths")
    parser.add_argument("--batch", type=int, default=64, help="training.batch")
    parser.add_argument("--lr", type=float, default=2e-3, help="training.lr")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    parser.add_argument("--images", type=int, default=2048, help="images per FID")
    parser.add_argument("--features", default="random", help="features.name")
    return parser.parse_args(arguments)


def run_name(given: argparse.Namespace) -> str:
    """Return a folder's name that tells trainings and scores with other options apart; seeds can be added."""
    told = {key: value for key, value in sorted(vars(given).items()) if key not in ("runs", "page", "seeds")}
    return f"{given.size}px-" + hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]


def main(arguments: list[str]) -> None:
    """Train, measure and write the section."""
    given, begin = parse(arguments), time.perf_counter()
    settings = DataSettings(format="idx", path=given.data, size=given.size)
    data = load_data(settings)
    folder = given.runs / run_name(given)
    folder.mkdir(parents=True, exist_ok=True)
    judge = Judge(*prepare_features(data, FeatureSettings(name=given.features), folder, CPU))
    tables: list[pd.DataFrame] = []
    for seed in range(given.seeds):
        for name, system in SYSTEMS.items():
            chosen = trainer_settings(given, system, settings, seed)
            directory = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            scores = directory / SCORES_FILE
            if not scores.exists():
                found = pd.DataFrame(rows_of(name, chosen, data, judge, directory, given))
                found.to_parquet(scores)
            tables.append(pd.read_parquet(scores))
    write_section(given.page, [*introduction(given, arguments, begin), markdown(table_of(pd.concat(tables)))])


def introduction(given: argparse.Namespace, arguments: list[str], begin: float) -> list[str]:
    """Return the lines that say how the table was made."""
    known = ", ".join(f"{name} {version}" for name, version in versions().items() if name in ("stepfront", "torch"))
    minutes, threads = (time.perf_counter() - begin) / 60, torch.get_num_threads()
    return [
        f"Made by `{shlex.join(['python', '-m', 'benchmarks.networks', *arguments])}` on {time.strftime('%Y-%m-%d')},",
        f"in {minutes:.0f} minutes (of the last call) on {threads} thread(s) of a CPU; {known}.",
        "",
        f"- Images: Fashion-MNIST at {given.size}x{given.size}. Networks: base {given.base}, multipliers 1, 2, 2;",
        "  `dit`: patches of 2, 64 channels, 3 blocks, 4 heads.",
        f"- Training: {given.gflops:,.0f} GFLOPs per system and seed; {given.seeds} seed(s); batches of {given.batch}.",
        "  A backward pass counts as two forward passes. Distillation in frequencies adds no pass.",
        f"- FID: {given.images:,} images on the features `{given.features}`, {given.steps} steps of `unipc_2` on the",
        "  grid `quadratic`. Latency: per image, in batches of 64.",
        "",
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
