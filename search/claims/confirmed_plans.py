"""Read confirmed plans from the table of confirmed scores: what each costs, and its scores on every judge."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from stepfront.arrays import Array

SCORES = ("fid", "second_fid")
"""Columns with the score of each judge; the first judge is the one that the search used."""
FULL_WIDTH_RUNS = r"(\d+xskip )*\d+x1\.00( \d+x(1\.00|skip))*"
"""Texts of plans that run full width, which is 1.00, at every step that they take."""
BLURRED = ("blurred_fid", "second_blurred_fid")
"""Columns with the score of each judge after a blur."""
FEATURES = ("features", "second_features")
"""Columns with the features of each judge."""


@dataclass(frozen=True, eq=False)
class ConfirmedPlan:
    """A plan with its scores on held-out noise seeds."""

    kind: str
    plan: str
    sampler: str
    """Solver and grid, where they are not those of the settings."""
    trial: int | None
    gflops: float
    latency_ms: float
    scores: pd.DataFrame
    """One row per noise seed, one column per judge."""
    searched: float = float("nan")
    """The search's own score, which no held-out seed has touched."""
    blurred: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Scores of the blurred images, as `scores`; empty where they were not scored."""

    @property
    def key(self) -> tuple[str, str]:
        """Return what tells two plans apart."""
        return self.plan, self.sampler

    @property
    def is_full_width(self) -> bool:
        """Return whether every step that is taken runs full width without marks, on whatever sampler."""
        return self.kind in ("full", "sampler") or re.fullmatch(FULL_WIDTH_RUNS, self.plan) is not None

    @property
    def steps(self) -> int:
        """Return how many steps are taken."""
        return sum(map(int, re.findall(r"(\d+)x(?!skip)", self.plan)))

    def cost(self, name: str) -> float:
        """Return the cost by its name, `gflops` or `latency_ms`."""
        return self.latency_ms if name == "latency_ms" else self.gflops

    def first_mean(self, seeds: int, judge: str) -> float:
        """Return the mean score on a judge over the first `seeds` seeds."""
        return float(self.scores[judge].iloc[:seeds].mean())


def judges_of(confirmed: pd.DataFrame) -> list[str]:
    """Return the features of the judges that have scored; a search may have been confirmed on one judge only."""
    return [
        next((str(name) for name in confirmed.get(features, ()) if name), score)
        for score, features in zip(SCORES, FEATURES, strict=True)
        if score in confirmed and confirmed[score].notna().any()
    ]


def read_plans(confirmed: pd.DataFrame) -> list[ConfirmedPlan]:
    """Return the confirmed plans, one per kind, plan and sampler.

    Only seeds that every judge has scored count.
    """
    columns = list(SCORES[: len(judges_of(confirmed))])
    blurs = dict(zip(BLURRED, columns, strict=False))
    table = confirmed.assign(sampler=confirmed.get("sampler", ""))
    plans = []
    for (kind, plan, sampler), rows in table.groupby(["kind", "plan", "sampler"], sort=False):
        by_seed = rows.drop_duplicates("noise_seed").set_index("noise_seed").sort_index()
        scores = by_seed[columns].dropna()
        blurred = by_seed.reindex(columns=list(blurs)).rename(columns=blurs).dropna()
        first = rows.iloc[0]
        trial = None if pd.isna(first["trial"]) else int(first["trial"])
        plans.append(
            ConfirmedPlan(
                str(kind),
                str(plan),
                str(sampler),
                trial,
                float(first["gflops"]),
                float(first["latency_ms"]),
                scores,
                float(first.get("fid_search", float("nan"))),
                blurred,
            )
        )
    return plans


def shared_scores(plans: list[ConfirmedPlan]) -> list[Array]:
    """Return one array [plans, seeds] per judge, over the seeds that all plans have."""
    if not plans:
        return []
    seeds = plans[0].scores.index
    for plan in plans[1:]:
        seeds = seeds.intersection(plan.scores.index)
    judges = plans[0].scores.columns
    return [np.array([plan.scores.loc[seeds, judge].to_numpy(dtype=np.float64) for plan in plans]) for judge in judges]
