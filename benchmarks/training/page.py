"""Write docs/bench-training.md from the scores of comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.markdown import markdown
from benchmarks.training.measure import GRID, JUDGES, NOISE_SEEDS, NUMBERS_OF_STEPS, SCORES_FILE, SOLVER
from benchmarks.training.plan_fits import FITTED, PLANS, UNDIVIDED, fit_table
from benchmarks.training.trainings import ALONE, COUNTS, EXTRACTED, RULES, TAUGHT, UNDIVIDED_STAGE, stage_name
from stepfront.errors import InputError

COMPARISON_FILE = "comparison.json"
"""What a comparison was begun with, in its folder."""

LISTED = (
    *RULES,
    TAUGHT,
    EXTRACTED,
    ALONE,
    UNDIVIDED_STAGE,
    *(stage_name(count, merge) for count in COUNTS for merge in (False, True)),
)
"""All trainings, in the order of the tables."""

NARROW = 0.5
"""Widths up to this one are those that groups and fits are asked to help."""

Tables = tuple[pd.DataFrame, pd.DataFrame]
"""Scores of trainings, and those of weights fitted to plans."""


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
    device: str = "a CPU"
    processes: int = 1
    """How many trained side by side; with several, minutes say nothing."""
    minutes: float | None = None
    """The time limit; None: there was none."""
    made: str = "2026-11-28"

    @property
    def options(self) -> str:
        """The options of the call."""
        more = f" --processes {self.processes}" if self.processes > 1 else ""
        more += "" if self.minutes is None else f" --minutes {self.minutes:g}"
        return (
            f"--supernet {self.supernet} --steps {self.steps} --extra {self.extra} --seeds {self.seeds} "
            f"--images {self.images}{more}"
        )

    def check_continues(self, earlier: Comparison) -> None:
        """Raise InputError where the scores of an earlier call can't stand beside those of this one."""
        for name in ("extra", "images", "device"):
            theirs, own = getattr(earlier, name), getattr(self, name)
            if theirs != own:
                raise InputError(
                    f"this comparison was begun with {name} {theirs}, not {own}; give the same, or another --runs"
                )


def read_comparison(folder: Path) -> Comparison | None:
    """Return the comparison that was begun in a folder; None where there is none."""
    path = folder / COMPARISON_FILE
    return Comparison(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def read_tables(runs: Path) -> dict[Comparison, Tables]:
    """Return the comparisons of which trainings are scored, with all scores that are there."""
    found = {}
    for folder in sorted(path.parent for path in runs.glob(f"*/{COMPARISON_FILE}")):
        tables = [pd.read_parquet(path) for path in sorted(folder.glob(f"seed-*/*/{SCORES_FILE}"))]
        scores, fits = (
            pd.concat([pd.DataFrame(), *(table for table in tables if column in table)])
            for column in ("training", "plan")
        )
        if len(scores) and (comparison := read_comparison(folder)) is not None:
            found[comparison] = scores, fits
    return found


def page(comparisons: Mapping[Comparison, Tables]) -> str:
    """Return docs/bench-training.md, of the scores and fits of each comparison."""
    intro = f"""# Trainings at equal network FLOPs

Made by `python -m benchmarks.training`. Each section names its options and device, and a call adds its section to those
that lie in `--runs`. `make bench-training` compares on digits with three training seeds, which takes hours.

Every training of a section has the network FLOPs of its first one, by the sandwich rule. Second stages start from the
first one's supernet, and each has the same further FLOPs, in all its groups together. The one of the undivided supernet
decides what groups are worth. Groups are by log-SNR. Merging takes the groups that are trained, so its minutes are
those of the merging alone.

- `{ALONE}`: `stepfront train CONFIG` with `--plain WIDTH`, so the four widths together take four times the FLOPs.
- `narrow widths 3 times`: factors of the loss from 3 (narrowest) to 1 (full width), `training.width_weights`.
- `{TAUGHT}`: the teacher's own training is not counted, its passes are.
- `{EXTRACTED}`: OFA-Diffusion's order. A tenth of the supernet's FLOPs is
  spent on each width's own weights, and the supernet has so much less that all together is equal.

FID is against the training images, mean of {NOISE_SEEDS} noise seeds and of the training seeds (± the standard error
over training seeds), {SOLVER} on the {GRID} grid. A supernet's widths are columns, and lower is better.
"""
    return "\n".join([intro, *(_section(comparison, *found) for comparison, found in comparisons.items())])


def _section(comparison: Comparison, scores: pd.DataFrame, fits: pd.DataFrame) -> str:
    seeds = f"{comparison.seeds} training seeds" if comparison.seeds > 1 else "one training seed"
    parts = [
        f"## {comparison.supernet}, {comparison.steps:,} steps",
        f"By `python -m benchmarks.training {comparison.options}` on {comparison.device}, "
        f"{comparison.made}: "
        f"{comparison.steps:,} sandwich steps, and {comparison.extra:,} more in a second stage; {seeds}, "
        f"{comparison.images:,} images per score.",
        *_incomplete(comparison, scores, fits),
        f"Held-out loss of the noise prediction:\n\n{markdown(loss_table(scores, comparison.processes == 1))}",
    ]
    for judge in JUDGES:
        for number in NUMBERS_OF_STEPS:
            table = markdown(score_table(scores, judge, number))
            parts.append(f"FID by {judge}, {number} steps:\n\n{table}")
    if len(fits):
        parts.append(
            "Weights fitted to a plan, as by `stepfront fit` with `--weights`: the first supernet's weights, trained "
            f"further at the plan's own times and widths, with the network FLOPs of {comparison.extra:,} sandwich "
            f"steps, the teacher's passes included; beside the same FLOPs spent on all widths (`{UNDIVIDED_STAGE}`). "
            "Each plan has weights of its own."
        )
        parts += [f"FID by {judge}:\n\n{markdown(fit_table(fits, judge))}" for judge in JUDGES]
    parts.append(
        f"What was asked of trainings, at 10 and 20 steps and by both judges:\n\n{markdown(goals_table(scores, fits))}"
    )
    return "\n\n".join(parts) + "\n"


def _incomplete(comparison: Comparison, scores: pd.DataFrame, fits: pd.DataFrame) -> list[str]:
    """Return a paragraph that names what lacks scores of some seeds; none where nothing does."""
    seeds = dict(scores.groupby(["training", "width"])["seed"].nunique().items())
    widths = sorted(scores["width"].unique())
    lacking: dict[str, list[str]] = {}
    for name in LISTED:
        short = [width for width in widths if seeds.get((name, width), 0) < comparison.seeds]
        if short:
            lacking[name] = [] if len(short) == len(widths) else [f"{width:g}" for width in short]
    found = [f"`{name}`" + (f" at width {', '.join(at)}" if at else "") for name, at in lacking.items()]
    fitted = fits.groupby("plan")["seed"].nunique() if len(fits) else {}
    found += [f"the fit to {plan}" for plan in PLANS if fitted.get(plan, 0) < comparison.seeds]
    return [f"Without scores of all seeds, for time or for an error: {'; '.join(found)}."] if found else []


def score_table(scores: pd.DataFrame, judge: str, steps: int) -> pd.DataFrame:
    """Return FID by training and width: the mean over trainings and noise, and its standard error over trainings."""
    chosen = scores[(scores["judge"] == judge) & (scores["steps"] == steps)]
    by_seed = chosen.groupby(["training", "width", "seed"], sort=False)["fid"].mean()
    groups = by_seed.groupby(["training", "width"], sort=False)
    mean, error = groups.mean(), groups.sem()
    cells = [f"{m:.2f}" + (f" ± {error[key]:.2f}" if error[key] == error[key] else "") for key, m in mean.items()]
    return _by_width(pd.Series(cells, index=mean.index))


def loss_table(scores: pd.DataFrame, with_minutes: bool = True) -> pd.DataFrame:
    """Return the held-out loss by training and width, and the minutes of a seed's trainings."""
    losses = scores.groupby(["training", "width"], sort=False)["loss"].mean()
    table = _by_width(losses.map("{:.4f}".format))
    if not with_minutes:
        return table
    # Widths that were trained together took the same minutes, once.
    trained = scores.drop_duplicates(["training", "seed", "minutes"]).groupby(["training", "seed"], sort=False)
    minutes = trained["minutes"].sum().groupby("training", sort=False).mean()
    return table.assign(minutes=minutes.map("{:.1f}".format))


def _by_width(cells: pd.Series) -> pd.DataFrame:
    """Return a row per training, in the order in which trainings are listed, and a column per width."""
    table = cells.unstack("width").sort_index(axis=1).fillna("")
    return table.loc[[name for name in LISTED if name in table.index]]


def goals_table(scores: pd.DataFrame, fits: pd.DataFrame) -> pd.DataFrame:
    """Return what was asked, the shares of FID that decide it, and in how many cells it is reached."""
    fid = scores.groupby(["training", "width", "judge", "steps"], sort=False)["fid"].mean().unstack("training")
    rows = []
    if ALONE in fid:
        plain = fid[[name for name in (*RULES, TAUGHT, EXTRACTED) if name in fid]].div(fid[ALONE], axis=0)
        rows += [
            _goal(f"a width of the supernet ({name}) within 10 % of the plain network of its FLOPs", plain[name], 1.1)
            for name in plain
        ]
    stages = [name for name in fid if str(name).startswith("second stage") and name != UNDIVIDED_STAGE]
    if UNDIVIDED_STAGE in fid and stages:
        narrow = fid[fid.index.get_level_values("width") <= NARROW]
        best = narrow[stages].div(narrow[UNDIVIDED_STAGE], axis=0).min(axis=1)
        rows.append(_goal(f"the best of all groups 10 % better than undivided, widths up to {NARROW:g}", best, 0.9))
    if len(fits):
        plans = fits.groupby(["plan", "judge", "seed", "weights"])["fid"].mean().unstack("weights")
        shares = (plans[FITTED] / plans[UNDIVIDED]).groupby(["plan", "judge"]).mean()
        both = shares.unstack("judge").max(axis=1)
        rows.append(_goal("weights fitted to a plan 10 % better than undivided, by both judges", both, 0.9))
    return pd.DataFrame(rows)


def _goal(name: str, shares: pd.Series, limit: float) -> dict[str, str]:
    low, high = shares.min(), shares.max()
    reached = f"{(shares <= limit).sum()} of {shares.notna().sum()}"
    return {"asked": name, "reached in": reached, "share of FID": f"{low:.2f} to {high:.2f}, {limit:g} asked"}
