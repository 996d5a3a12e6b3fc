"""Name the trainings that are compared: rules and losses, each width alone, and second stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.training.plan_fits import PLANS
from stepfront.trainers.baselines.plain_network import plain_settings, step_macs
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.training_settings import AdaptSettings, GroupSettings

FIRST = "sandwich"
"""The training whose network FLOPs are those of all, and whose supernet second stages start from."""

SINGLE = "one random width a step"

RULES: dict[str, dict[str, Any]] = {
    FIRST: {},
    SINGLE: {"rule": "single"},
    "sandwich, loss min_snr": {"loss_weight": "min_snr"},
    "sandwich, loss p2": {"loss_weight": "p2"},
    "sandwich, narrow widths 3 times": {"width_weights": "narrow"},
    "sandwich, distill 0.1": {"distill": 0.1},
    "sandwich, distill 0.25": {"distill": 0.25},
    "sandwich, distill 0.5": {"distill": 0.5},
    "sandwich, distill 1": {"distill": 1.0},
}
"""Trainings of a supernet by a name for the table."""

ALONE = "alone"

TAUGHT = "sandwich, distill 0.25 from full width alone"
"""Its teacher's own training is not counted; the teacher's passes are."""

EXTRACTED = f"{SINGLE}, then each width"
"""OFA-Diffusion's order (arXiv 2604.12668): each extracted subnet gets a tenth of the supernet's training more."""

TENTH = 0.1

UNDIVIDED_STAGE = "second stage: undivided"

COUNTS = (2, 4, 8)
"""Numbers of groups of times in second stages."""


def stage_name(count: int, merge: bool) -> str:
    """Return the name of a second stage of so many groups."""
    return f"second stage: {count} groups{', merged' if merge else ''}"


NARROW_FACTOR = 3.0
"""Factor of the narrowest width's loss in `width_weights: narrow`; the widest has 1."""


@dataclass(frozen=True)
class Training:
    """One training: its name in the tables, its settings, and what it needs.

    `width` is the width of the supernet that it is of (None: all), and `own_width` what its own network calls that one.
    """

    name: str
    settings: TrainerSettings
    width: float | None = None
    own_width: float = 1.0
    adapt: AdaptSettings | None = None
    """The second stage that it is; None: an ordinary training."""
    needs: tuple[str, ...] = ()
    """Folders of the trainings that come before it."""
    shown: bool = True
    """Whether it stands in the tables; otherwise others begin with it."""

    @property
    def folder(self) -> str:
        """The name of its folder."""
        kept = "".join(letter if letter.isalnum() or letter == "." else "-" for letter in self.name)
        return kept + ("" if self.width is None else f"-{self.width:g}")

    @property
    def groups_folder(self) -> str:
        """The name of the folder in which the groups of a second stage are trained, for both of its forms."""
        assert self.adapt is not None
        return f"groups-{self.adapt.groups.count}"


def trainings(base: TrainerSettings, shape: tuple[int, int], extra: int, place: Path) -> Iterator[Training]:
    """Yield all trainings below `place`, on images of a shape, those first without which a section says nothing.

    Each has the network FLOPs of the first.  Second stages have those of `extra` sandwich steps, in all their groups
    together.  The one that spends them on the undivided supernet decides what groups are worth.
    """
    total = base.training.steps * step_macs(base, *shape)
    rules = [_rule(base, name, change, shape, total) for name, change in RULES.items()]
    yield from rules[:2]
    first = rules[0].folder
    alone = [Training(ALONE, plain_settings(base, width, *shape), width) for width in base.network.widths]
    yield from alone
    rates = AdaptSettings()
    more = {"steps": extra, "start": str(place / first), "lr": rates.lr, "warmup": rates.warmup}
    yield Training(UNDIVIDED_STAGE, with_training(base, more), needs=(first,))
    for merge in (False, True):
        for count in COUNTS:
            adapt = AdaptSettings(groups=GroupSettings(count=count), steps=max(1, extra // count), merge=merge)
            # Both forms are of the same groups, which the first one trains.
            needs = (first, Training(stage_name(count, False), base).folder) if merge else (first,)
            yield Training(stage_name(count, merge), base, adapt=adapt, needs=needs)
    yield from rules[2:]
    yield from _extracted(base, shape, total, place)
    teacher = {"distill": 0.25, "teacher": str(place / alone[-1].folder)}
    passes = count_width(base.network, *shape, 1.0).macs / 3
    taught = with_training(base, teacher)
    steps = round(total / (step_macs(taught, *shape) + passes))
    yield Training(TAUGHT, with_training(taught, {"steps": steps}), needs=(alone[-1].folder,))


def _rule(base: TrainerSettings, name: str, change: dict[str, Any], shape: tuple[int, int], total: float) -> Training:
    if change.get("width_weights") == "narrow":
        last = len(base.network.widths) - 1
        factors = [1 + (NARROW_FACTOR - 1) * (last - place) / last for place in range(last + 1)]
        change = {"width_weights": tuple(factors)}
    settings = with_training(base, change)
    return Training(name, with_training(settings, {"steps": round(total / step_macs(settings, *shape))}))


def _extracted(base: TrainerSettings, shape: tuple[int, int], total: float, place: Path) -> Iterator[Training]:
    """Yield OFA-Diffusion's training: a supernet's, then each width's own, with `total` FLOPs in all."""
    widths = base.network.widths
    share = 1 / (1 + TENTH * len(widths))
    settings = with_training(base, {"rule": "single"})
    steps = max(1, round(share * total / step_macs(settings, *shape)))
    before = Training(f"{EXTRACTED}: the supernet", with_training(settings, {"steps": steps}), shown=False)
    yield before
    for width in widths:
        # Of two widths, the narrowest is drawn in all steps but one in a million.
        pair = base.network.model_copy(update={"widths": (width, 1.0) if width < 1 else (1.0,)})
        steps = max(1, round(TENTH * share * total / count_width(base.network, *shape, width).macs))
        rates = AdaptSettings()
        change = {"rule": "single", "narrowest_share": 1e6, "start": str(place / before.folder), "steps": steps}
        change |= {"lr": rates.lr, "warmup": rates.warmup}
        alone = with_training(base.model_copy(update={"network": pair}), change)
        yield Training(EXTRACTED, alone, width, own_width=width, needs=(before.folder,))


def with_training(settings: TrainerSettings, change: dict[str, Any]) -> TrainerSettings:
    """Return the settings with some of the training's changed."""
    return settings.model_copy(update={"training": settings.training.model_copy(update=change)})


@dataclass(frozen=True)
class Fit:
    """Weights fitted to one plan, held against those of two trainings."""

    plan: str
    needs: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return "fitted-" + self.plan.replace(" ", "-")


def fits(base: TrainerSettings) -> Iterator[Fit]:
    """Yield the fits of weights to plans."""
    needs = tuple(Training(name, base).folder for name in (FIRST, UNDIVIDED_STAGE))
    for plan in PLANS:
        yield Fit(plan, needs)
