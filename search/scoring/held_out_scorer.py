"""Score plans on held-out noise with both judges; workers start when the first plan needs a score."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from stepfront.search.execution.plan_scorer import PlanScorer
from stepfront.search.execution.ray_session import ray_session
from stepfront.search.problem.costs import load_or_measure_costs
from stepfront.search.problem.evaluator_parts import load_real_features, plan_scorer, with_scores, worker_parts
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.plan_rows import learnt_of
from stepfront.tables.schema import BESIDE_FID
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation
from stepfront.trainers.metrics.features import Judge

OnResult: TypeAlias = Callable[[int, int], None]
"""Called with the number of finished scores and of all scores."""

PlanKey: TypeAlias = tuple[str, str]
"""A plan's runs, and its sampler where that is not the settings' own."""

DIGEST_DIGITS = 12

SECOND_JUDGE = ("second_fid", "second_features", "blurred_fid", "second_blurred_fid")
"""What an evaluation has where there is a second judge."""


def plan_name(key: PlanKey) -> str:
    """Return the name of a plan for messages."""
    plan, sampler = key
    return f"{plan} ({sampler})" if sampler else plan


class HeldOutScorer:
    """Workers with both judges and features of real images, from the first score to the end of the context."""

    def __init__(self, problem: SearchProblem, judge: Judge, directory: Path, images: int, on_result: OnResult) -> None:
        self.images = images
        self._problem, self._judge, self._directory, self._on_result = problem, judge, directory, on_result
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def second_digest(self) -> str:
        """Return the first digits of the digest of the second judge's features."""
        return self._judge.features.digest[:DIGEST_DIGITS]

    @cached_property
    def _real(self) -> Any:
        return load_real_features(self._problem)

    @property
    def real_images(self) -> int:
        """Return how many real images KID, precision and recall compare with; 0 where there are none."""
        return 0 if self._real is None else min(self.images, len(self._real))

    @cached_property
    def plan_scorer(self) -> PlanScorer:
        """Return the scorer of plans, started at the first use."""
        settings = self._problem.settings
        self._stack.enter_context(ray_session(settings.workers))
        costs = load_or_measure_costs(self._problem, self._directory)
        parts = replace(worker_parts(self._problem, costs), real=self._real, second=self._judge)
        parts = with_scores(replace(parts, extrapolate=settings.confirm.extrapolate), self._problem, settings.scores)
        images = max(self.images, settings.evaluation.images)
        return self._stack.enter_context(plan_scorer(self._problem, costs, images, parts))

    def score(
        self, jobs: Sequence[tuple[PlanKey, Plan, int]], on_row: Callable[[dict[str, Any]], None]
    ) -> dict[PlanKey, str]:
        """Score each (key, plan, noise seed); give `on_row` its row as soon as it has one.

        Returns why plans could not be scored on some seed; empty where all could.
        """
        failed: dict[PlanKey, str] = {}

        def on_score(index: int, evaluation: Evaluation) -> None:
            key, plan, seed = jobs[index]
            if evaluation.error:
                failed.setdefault(key, evaluation.error)
                return
            row = {"plan": key[0], "sampler": key[1], "learnt": learnt_of(plan), "noise_seed": seed}
            row |= {"images": self.images, "fid": evaluation.fid}
            row |= {name: getattr(evaluation, name) for name in (*BESIDE_FID, "real_images", "fid_infinity")}
            row |= {name: getattr(evaluation, name) for name in SECOND_JUDGE}
            on_row(row | {"second_digest": self.second_digest} | dict(evaluation.scores))

        pairs = [(plan, seed) for _, plan, seed in jobs]
        self.plan_scorer.score(pairs, self.images, self._on_result, on_score)
        return failed
