"""Write docs/bench-variants.md: tables by cost, and the answer to whether variants are ahead of widths alone."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.markdown import markdown_lines
from stepfront.files import write_text
from stepfront.search.records.versions import versions

Front = dict[float, tuple[str, float, list[float]]]
"""By cost as a share of full width: the chosen plan, its GFLOPs, and its FID on each held-out noise seed."""

WIDTHS, VARIANTS, FEWER = "widths", "variants", "fewer steps"

MOST_DRIVER_RATIO = 1.10
"""What was asked of the driver's time per trial with variants, as a share of that of widths alone."""


@dataclass(frozen=True)
class Measured:
    """What was measured on one supernet; `fronts` and `driver_seconds` (CPU, per trial) are by name."""

    title: str
    variants: Sequence[str]
    full_gflops: float
    fronts: Mapping[str, Front]
    driver_seconds: Mapping[str, float]
    held_out_losses: Mapping[float, float]
    minutes: float

    def content(self) -> dict[str, Any]:
        """Return plain values for JSON; keys that are numbers are written as pairs."""
        pairs = {name: [[share, *point] for share, point in front.items()] for name, front in self.fronts.items()}
        return asdict(self) | {"fronts": pairs, "held_out_losses": list(self.held_out_losses.items())}

    @staticmethod
    def of_content(content: Mapping[str, Any]) -> Measured:
        """Return what `content` gave."""
        fronts = {name: {row[0]: (row[1], row[2], row[3]) for row in rows} for name, rows in content["fronts"].items()}
        return Measured(**dict(content) | {"fronts": fronts, "held_out_losses": dict(content["held_out_losses"])})


@dataclass(frozen=True)
class Difference:
    """The mean difference of FID over noise seeds, and its 95% interval; negative: variants are better."""

    mean: float
    low: float
    high: float

    @property
    def ahead(self) -> bool:
        """Whether variants are better by more than the interval."""
        return self.high < 0

    @property
    def behind(self) -> bool:
        """Whether variants are worse by more than the interval."""
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def difference(ours: Sequence[float], others: Sequence[float]) -> Difference:
    """Return the difference of scores on equal noise seeds, by Student's t over the seeds."""
    each = np.subtract(ours, others)
    if not each.any():
        return Difference(0.0, 0.0, 0.0)  # the same plan
    mean, half = float(each.mean()), float(stats.t.ppf(0.975, len(each) - 1) * stats.sem(each))
    return Difference(mean, mean - half, mean + half)


def differences(one: Measured, other: str) -> dict[float, Difference]:
    """Return the difference to another front at each cost that both reach."""
    ours, theirs = one.fronts[VARIANTS], one.fronts[other]
    return {share: difference(ours[share][2], theirs[share][2]) for share in sorted(ours.keys() & theirs.keys())}


def answer(one: Measured, other: str) -> str:
    """Return one sentence on where the front with variants is ahead of another, and where behind."""
    found = differences(one, other)
    ahead, behind = sum(d.ahead for d in found.values()), sum(d.behind for d in found.values())
    line = f"against {other}: ahead at {ahead} of {len(found)} costs, behind at {behind}"
    if other != WIDTHS:
        return line
    return f"{line} ({'as' if not behind and 2 * ahead >= len(found) else 'not as'} asked: no cost behind, half ahead)"


def fid_table(one: Measured) -> list[str]:
    """Return the lines of the table of FID by cost: the mean and the standard deviation over noise seeds."""
    rows = []
    for share in sorted({share for front in one.fronts.values() for share in front}):
        cells = [_fid(front.get(share)) for front in one.fronts.values()]
        found = differences(one, WIDTHS).get(share)
        rows.append([f"{share:.0%}", f"{share * one.full_gflops:.4f}", *cells, "" if found is None else str(found)])
    return markdown_lines(["cost", "GFLOPs", *one.fronts, "variants less widths [95%]"], rows)


def plan_table(one: Measured) -> list[str]:
    """Return the lines of the table of the plans at each cost."""
    names = [name for name in one.fronts if name != FEWER]
    rows = [
        [f"{share:.0%}", *(_plan(one.fronts[name].get(share)) for name in names)]
        for share in sorted(one.fronts[WIDTHS].keys() | one.fronts[VARIANTS].keys())
    ]
    return markdown_lines(["cost", *names], rows)


def _fid(point: tuple[str, float, list[float]] | None) -> str:
    return "" if point is None else f"{np.mean(point[2]):.2f} ± {np.std(point[2], ddof=1):.2f}"


def _plan(point: tuple[str, float, list[float]] | None) -> str:
    return "" if point is None else f"`{point[0]}`"


def driver_answer(driver_seconds: Mapping[str, float]) -> str:
    """Return one sentence on the driver's time per trial with variants beside that of widths alone."""
    ours, others = driver_seconds[VARIANTS], driver_seconds[WIDTHS]
    ratio = ours / others
    return (
        f"Driver, CPU time per trial: {1000 * others:.1f} ms for widths alone, {1000 * ours:.1f} ms with variants, a "
        f"ratio of {ratio:.2f} ({'as' if ratio <= MOST_DRIVER_RATIO else 'not as'} asked: at most "
        f"{MOST_DRIVER_RATIO:.2f})."
    )


def section(one: Measured) -> str:
    """Return the section of a supernet."""
    others = [name for name in one.fronts if name != VARIANTS]
    losses = ", ".join(f"{width:g}: {loss:.4f}" for width, loss in sorted(one.held_out_losses.items()))
    lines = [
        f"## {one.title}",
        "",
        f"`space.variants`: {', '.join(one.variants)}. Full width at all steps: {one.full_gflops:.4f} GFLOPs per "
        f"image. Held-out loss by width: {losses}.",
        "",
        "The front with variants,",
        "",
        *(f"- {answer(one, other)}" + (";" if other != others[-1] else ".") for other in others),
        "",
        *fid_table(one),
        "",
        "The plans:",
        "",
        *plan_table(one),
        "",
        driver_answer(one.driver_seconds),
    ]
    return "\n".join(lines)


def write_page(path: Path, measured: Sequence[Measured], given: argparse.Namespace, command: str) -> None:
    """Write the page."""
    minutes = sum(one.minutes for one in measured)
    known = ", ".join(f"{name} {version}" for name, version in versions().items() if name in ("stepfront", "torch"))
    introduction = (
        f"# Variants of a step\n\nMade by `make bench-variants` (`{command}`) on {time.strftime('%Y-%m-%d')}, in "
        f"{minutes:.0f} minutes on one thread of a CPU that others used, too; {known}.\n\n"
        f"A supernet of base {given.base} on {given.limit:,} images of Fashion-MNIST at {given.size}x{given.size}, "
        f"{given.training_steps:,} training steps, one training seed. {given.steps} denoising steps, the default "
        f"sampler and space (`skip: even`). Both searches have {given.trials} evaluations of {given.images} images on "
        f"one noise seed, one search seed. FID is on the features `{given.features}`.\n\n"
        "At each cost, a front gives its plan with the best FID of the search that is not dearer. So do `deepcache` "
        "(each width with `r` in full at every 2nd, 3rd and 5th step), `guidance_interval` and `fewer steps` (full "
        "width), chosen by their scores on the same noise seed. The chosen plans are scored again on "
        f"{given.seeds} held-out noise seeds of {given.held_out} images. Tables show the mean ± the standard deviation "
        "over these seeds. The interval is that of the mean difference, seed by seed (Student's t). Fronts are of one "
        "search each, so it holds noise of seeds, not of searches or trainings. A cost is a share of full width at all "
        "steps."
    )
    write_text(path, "\n\n".join([introduction, *map(section, measured)]) + "\n")
