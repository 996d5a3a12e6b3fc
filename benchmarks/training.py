"""Compare trainings at equal network FLOPs: rules and losses, second stages, and each width trained alone.

Run it with `make bench-training`; it writes docs/bench-training.md.  Networks lie in runs/bench-training, and an
interrupted call continues.  Every training has the network FLOPs of the first one, and all are scored on equal noise.
Second stages start from the first one's supernet, and have further FLOPs, the same for all.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.markdown import markdown
from benchmarks.plan_fits import FITTED, SUPERNET, UNDIVIDED, fit_table, measure_fits
from benchmarks.samplers.case import FIRST_SEED, open_case
from benchmarks.samplers.judges import prepare_judge
from benchmarks.samplers.supernets import DATA, SUPERNETS, settings_of
from stepfront.files import write_text
from stepfront.trainers.adaptation.second_stage import SecondStage
from stepfront.trainers.baselines.plain_network import plain_settings, step_macs
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import time_grid
from stepfront.trainers.networks.card import CARD_FILE
from stepfront.trainers.training.trainer import train_supernet
from stepfront.trainers.training_settings import AdaptSettings, GroupSettings

FIRST = "sandwich"

UNDIVIDED_STAGE = "second stage: undivided"

RULES: dict[str, dict[str, Any]] = {
    FIRST: {},
    "sandwich, distill 0.25": {"distill": 0.25},
    "one random width a step": {"rule": "single"},
}
"""Trainings of a supernet by a name for the table; the first one's network FLOPs are those of all."""

COUNTS = (2, 4, 8)
"""Numbers of groups of times in second stages."""

NUMBERS_OF_STEPS = (10, 20)
SOLVER, GRID = "unipc_2", "quadratic"
JUDGES = ("degradations", "classifier")

COMPARISON_FILE, SCORES_FILE, FITS_FILE = "comparison.json", "scores.parquet", "fits.parquet"
"""What the folder of a comparison holds once it is measured."""


@dataclass(frozen=True)
class Training:
    """One training: its name in the table, its settings, and the width of the supernet that it is of; None: all."""

    name: str
    settings: TrainerSettings
    width: float | None = None
    adapt: AdaptSettings | None = None
    """The second stage that it is; None: an ordinary training."""

    @property
    def folder(self) -> str:
        """The name of its folder."""
        kept = "".join(letter if letter.isalnum() or letter == "." else "-" for letter in self.name)
        return kept + ("" if self.width is None else f"-{self.width:g}")


def trainings(base: TrainerSettings, data: ImageData) -> Iterator[Training]:
    """Yield all trainings that are compared, each with the network FLOPs of the first."""
    shape = data.channels, data.resolution
    total = base.training.steps * step_macs(base, *shape)
    for name, change in RULES.items():
        settings = base.model_copy(update={"training": base.training.model_copy(update=change)})
        steps = round(total / step_macs(settings, *shape))
        yield Training(name, _with_steps(settings, steps))
    for width in base.network.widths:
        yield Training("alone", plain_settings(base, width, *shape), width)


def second_stages(base: TrainerSettings, extra: int, first: Path) -> Iterator[Training]:
    """Yield the second stages from the supernet in `first`, each of `extra` sandwich steps in all its groups together.

    The first one spends them on the undivided supernet: it decides what groups are worth.
    """
    rates = AdaptSettings()
    changes = {"steps": extra, "start": str(first), "lr": rates.lr, "warmup": rates.warmup}
    more = base.training.model_copy(update=changes)
    yield Training(UNDIVIDED_STAGE, base.model_copy(update={"training": more}))
    for count in COUNTS:
        groups = GroupSettings(count=count)
        for merge in (False, True):
            adapt = AdaptSettings(groups=groups, steps=max(1, extra // count), merge=merge)
            yield Training(f"second stage: {count} groups{', merged' if merge else ''}", base, adapt=adapt)


def train(training: Training, data: ImageData, folder: Path) -> None:
    """Run a training, or a second stage, in its folder below `folder`; the groups of both forms are trained once."""
    directory = folder / training.folder
    directory.mkdir(parents=True, exist_ok=True)
    if training.adapt is None:
        train_supernet(training.settings, data, directory)
        return
    groups = folder / f"groups-{training.adapt.groups.count}"
    first = folder / Training(FIRST, training.settings).folder
    stage = SecondStage.begin(training.settings, training.adapt, data, first, groups)
    for group in stage.trainings():
        if not group.done:
            train_supernet(group.settings, data, group.directory)
    stage.finish(directory)


def _with_steps(settings: TrainerSettings, steps: int) -> TrainerSettings:
    return settings.model_copy(update={"training": settings.training.model_copy(update={"steps": steps})})


def score_table(scores: pd.DataFrame, judge: str, steps: int) -> pd.DataFrame:
    """Return FID by training and width: the mean over trainings and noise, and its standard error over trainings."""
    chosen = scores[(scores["judge"] == judge) & (scores["steps"] == steps)]
    by_seed = chosen.groupby(["training", "width", "seed"], sort=False)["fid"].mean()
    groups = by_seed.groupby(["training", "width"], sort=False)
    mean, error = groups.mean(), groups.sem()
    cells = [f"{m:.2f}" + (f" ± {error[key]:.2f}" if error[key] == error[key] else "") for key, m in mean.items()]
    return pd.Series(cells, index=mean.index).unstack("width", sort=False)


def loss_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the held-out loss by training and width, and the minutes of a seed's trainings."""
    losses = scores.groupby(["training", "width"], sort=False)["loss"].mean()
    # Widths that were trained together took the same minutes, once.
    trained = scores.drop_duplicates(["training", "seed", "minutes"]).groupby(["training", "seed"], sort=False)
    minutes = trained["minutes"].sum().groupby("training", sort=False).mean()
    return losses.map("{:.4f}".format).unstack("width", sort=False).assign(minutes=minutes.map("{:.1f}".format))


NARROW = 0.5
"""Widths up to this one are those that groups and fits are asked to help."""


def asked(scores: pd.DataFrame, fits: pd.DataFrame) -> pd.DataFrame:
    """Return what was asked, the shares of FID that decide it, and in how many cells it is reached."""
    fid = scores.groupby(["training", "width", "judge", "steps"], sort=False)["fid"].mean().unstack("training")
    plain = fid[[name for name in RULES if name in fid]].div(fid["alone"], axis=0)
    narrow = fid[fid.index.get_level_values("width") <= NARROW]
    stages = [name for name in fid if str(name).startswith("second stage") and name != UNDIVIDED_STAGE]
    groups = narrow[stages].div(narrow[UNDIVIDED_STAGE], axis=0)
    plans = fits.groupby(["plan", "judge", "weights"])["fid"].mean().unstack("weights")
    fitted = (plans[FITTED] / plans[UNDIVIDED]).unstack("judge")
    rows = [
        _goal(f"a width of the supernet ({name}) within 10 % of the plain network of its FLOPs", plain[name], 1.1)
        for name in plain
    ]
    best = groups.min(axis=1)
    rows.append(_goal(f"the best of all groups 10 % better than undivided, widths up to {NARROW:g}", best, 0.9))
    both = fitted.max(axis=1)
    return pd.DataFrame(
        [*rows, _goal("weights fitted to a plan 10 % better than undivided, by both judges", both, 0.9)]
    )


def _goal(name: str, shares: pd.Series, limit: float) -> dict[str, str]:
    low, high = shares.min(), shares.max()
    reached = f"{(shares <= limit).sum()} of {len(shares)}"
    return {"asked": name, "reached in": reached, "share of FID": f"{low:.2f} to {high:.2f}, {limit:g} asked"}


@dataclass(frozen=True)
class Comparison:
    """What one call compares: trainings of `supernet` with the FLOPs of `steps` sandwich steps, second ones of `extra`.

    Each training runs with `seeds` seeds, and each score is of `images` images.
    """

    supernet: str
    steps: int
    extra: int
    seeds: int
    images: int

    @property
    def options(self) -> str:
        """The options of the call."""
        return (
            f"--supernet {self.supernet} --steps {self.steps} --extra {self.extra} --seeds {self.seeds} "
            f"--images {self.images}"
        )


def page(comparisons: Mapping[Comparison, tuple[pd.DataFrame, pd.DataFrame]]) -> str:
    """Return docs/bench-training.md, of the scores and fits of each comparison."""
    made = time.strftime("%Y-%m-%d")
    intro = f"""# Trainings at equal network FLOPs

Made by `make bench-training`, on a CPU; the last section on {made}. Each section names its own command, and a call adds
its section to those that lie in `--runs`.

Every training of a section has the network FLOPs of its first one, by the sandwich rule. Second stages start from the
first one's supernet, and each has the same further FLOPs, in all its groups together. The one of the undivided supernet
decides what groups are worth. Groups are by log-SNR. Merging takes the groups that are trained, so its minutes are
those of the merging alone. `alone`: `stepfront train CONFIG` with `--plain WIDTH`, so the four widths together take
four times the FLOPs.

FID is against the training images, mean of three noise seeds and of the training seeds (± the standard error over
training seeds), {SOLVER} on the {GRID} grid. A supernet's widths are columns, and lower is better.

The trainings are as long as two cores allow. They are shorter, and their seeds fewer, than the three seeds on
Fashion-MNIST at 28x28 and on CIFAR-10 that were asked for.
"""
    return "\n".join([intro, *(_section(comparison, *found) for comparison, found in comparisons.items())])


def _section(comparison: Comparison, scores: pd.DataFrame, fits: pd.DataFrame) -> str:
    seeds = f"{comparison.seeds} training seeds" if comparison.seeds > 1 else "one training seed"
    parts = [
        f"## {comparison.supernet}, {comparison.steps:,} steps",
        f"By `python -m benchmarks.training {comparison.options}`: {comparison.steps:,} sandwich steps, and "
        f"{comparison.extra:,} more in a second stage; {seeds}, {comparison.images:,} images per score.",
        f"Held-out loss of the noise prediction:\n\n{markdown(loss_table(scores))}",
    ]
    for judge in JUDGES:
        for number in NUMBERS_OF_STEPS:
            table = markdown(score_table(scores, judge, number))
            parts.append(f"FID by {judge}, {number} steps:\n\n{table}")
    parts.append(
        "Weights fitted to a plan, as by `stepfront fit` with `--weights`: the first supernet's weights, trained "
        f"further at the plan's own times and widths, with the network FLOPs of {comparison.extra:,} sandwich steps, "
        f"the teacher's passes included; beside the same FLOPs spent on all widths (`{UNDIVIDED_STAGE}`). Each plan "
        "has weights of its own."
    )
    parts += [f"FID by {judge}:\n\n{markdown(fit_table(fits, judge))}" for judge in JUDGES]
    parts.append(
        f"What was asked of trainings, at 10 and 20 steps and by both judges:\n\n{markdown(asked(scores, fits))}"
    )
    return "\n\n".join(parts) + "\n"


def measure(training: Training, data: ImageData, folder: Path, judges: Path, images: int, seeds: int) -> pd.DataFrame:
    """Train and score what is missing; return a row per width, number of steps, judge and noise seed."""
    directory, path = folder / training.folder, folder / training.folder / SCORES_FILE
    if path.exists():
        return pd.read_parquet(path)
    begin = time.monotonic()
    if not (directory / CARD_FILE).exists():
        train(training, data, folder)
    minutes = (time.monotonic() - begin) / 60
    for file in judges.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    case = open_case(directory, torch.device("cpu"), images)
    losses = json.loads((directory / CARD_FILE).read_text(encoding="utf-8"))["made_with"]["held_out_losses"]
    rows = []
    for width in case.supernet.widths:
        shown = width if training.width is None else training.width
        for steps in NUMBERS_OF_STEPS:
            plan = Plan(tuple(time_grid(case.schedule, GRID, steps)), (width,) * steps, SOLVER, grid=GRID)
            for seed in range(seeds):
                for judge, score in case.scores(plan, FIRST_SEED + seed).items():
                    row = {"training": training.name, "width": shown, "steps": steps, "judge": judge, "noise": seed}
                    rows.append(row | {"fid": score, "loss": losses[str(width)], "minutes": minutes})
    table = pd.DataFrame(rows)
    table.to_parquet(path)
    return table


def measured_fits(settings: TrainerSettings, data: ImageData, place: Path, extra: int, images: int) -> pd.DataFrame:
    """Return the scores of plans on weights of their own, and on those that are in `place`."""
    path = place / FITS_FILE
    if not path.exists():
        names = {SUPERNET: FIRST, UNDIVIDED: UNDIVIDED_STAGE}
        folders = {weights: place / Training(name, settings).folder for weights, name in names.items()}
        measure_fits(settings, data, folders, extra, (SOLVER, GRID), images).to_parquet(path)
    return pd.read_parquet(path)


def compare(comparison: Comparison, folder: Path, data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and score what is missing in `folder`; return the scores, and those of weights fitted to plans."""
    base = settings_of(comparison.supernet, data)
    base, images = _with_steps(base, comparison.steps), load_data(base.data)
    judges = folder / "judges"
    if not judges.exists():
        judges.mkdir(parents=True)
        for judge in JUDGES:
            prepare_judge(judge, images, judges, data, torch.device("cpu"))
    tables, fits = [], []
    for seed in range(comparison.seeds):
        settings, place = _with_seed(base, seed), folder / f"seed-{seed}"
        first = place / Training(FIRST, settings).folder
        for training in [*trainings(settings, images), *second_stages(settings, comparison.extra, first)]:
            table = measure(training, images, place, judges, comparison.images, 3)
            tables.append(table.assign(seed=seed))
            print(f"seed {seed}, {training.folder}: {table['minutes'].iloc[0]:.1f} min", flush=True)
        fits.append(measured_fits(settings, images, place, comparison.extra, comparison.images).assign(seed=seed))
        print(f"seed {seed}: fitted to plans", flush=True)
    return pd.concat(tables), pd.concat(fits)


def kept(runs: Path) -> dict[Comparison, tuple[pd.DataFrame, pd.DataFrame]]:
    """Return the comparisons that calls have measured to their end, with their scores and fits."""
    found = {}
    for path in sorted(runs.glob(f"*/{COMPARISON_FILE}")):
        tables = [pd.read_parquet(path.parent / name) for name in (SCORES_FILE, FITS_FILE)]
        found[Comparison(**json.loads(path.read_text(encoding="utf-8")))] = tables[0], tables[1]
    return found


def main() -> None:
    """Train, score and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--supernet", choices=SUPERNETS, default="digits")
    parser.add_argument("--steps", type=int, help="sandwich steps of the supernet; default: those of its settings")
    parser.add_argument("--extra", type=int, help="sandwich steps of second stages; default: half of the first's")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds")
    parser.add_argument("--images", type=int, default=1024, help="images per score")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of fashion-mnist and cifar10-jpg")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench-training"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    given = parser.parse_args()
    steps = given.steps or settings_of(given.supernet, given.data).training.steps
    comparison = Comparison(given.supernet, steps, given.extra or steps // 2, given.seeds, given.images)
    folder = given.runs / f"{given.supernet}-{steps}"
    for name, table in zip((SCORES_FILE, FITS_FILE), compare(comparison, folder, given.data), strict=True):
        table.to_parquet(folder / name)
    write_text(folder / COMPARISON_FILE, json.dumps(asdict(comparison)))
    write_text(given.docs / "bench-training.md", page(kept(given.runs)))


def _with_seed(settings: TrainerSettings, seed: int) -> TrainerSettings:
    return settings.model_copy(update={"training": settings.training.model_copy(update={"seed": seed})})


if __name__ == "__main__":
    main()
