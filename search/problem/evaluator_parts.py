"""Assemble what an evaluator of plans needs, on a worker or in this process, and start the workers that score lists."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.execution.plan_scorer import PlanScorer
from stepfront.search.execution.shared_prefixes import shared_prefixes
from stepfront.search.execution.worker import LoadEvaluator
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import read_fitted_weights
from stepfront.search.settings.own_scores import KID, ScoreSettings
from stepfront.trainers.devices import pick_device
from stepfront.trainers.evaluator import EvaluatorParts
from stepfront.trainers.inference.cost import WidthCost
from stepfront.trainers.inference.engine import PLAIN
from stepfront.trainers.metrics.features import real_features
from stepfront.trainers.metrics.kid_precision_recall import KernelScore
from stepfront.trainers.metrics.user_scores import UserScore

CPU_BATCH = 256
"""Images per network call on a CPU, where more are no faster."""


@contextlib.contextmanager
def plan_scorer(
    problem: SearchProblem, costs: dict[float, WidthCost], images: int, parts: EvaluatorParts | None = None
) -> Iterator[PlanScorer]:
    """Provide workers that score lists of plans on up to `images` images.

    Needs a Ray session.  They have the parts of the search's own workers, or those that are given.
    """
    with (
        worker_load(problem, costs, images, parts) as (load, limit),
        PlanScorer(load, problem.settings.workers, limit) as scorer,
    ):
        yield scorer


@contextlib.contextmanager
def worker_load(
    problem: SearchProblem, costs: dict[float, WidthCost], images: int, parts: EvaluatorParts | None = None
) -> Iterator[tuple[LoadEvaluator, float]]:
    """Provide what workers load, with the prefixes that they share, and the seconds that an evaluation may take."""
    with shared_prefixes(problem.settings.workers) as shared:
        load = LoadEvaluator(worker_parts(problem, costs) if parts is None else parts, shared)
        yield load, evaluation_limit(problem.settings, costs, images)


def evaluation_limit(settings: RunSettings, costs: dict[float, WidthCost], images: int) -> float:
    """Return the seconds after which an evaluation of `images` images counts as hung."""
    if settings.workers.limit_minutes is not None:
        return 60 * settings.workers.limit_minutes
    latency = 0.0 if costs[1.0].latency_ms is None else 1e-3 * costs[1.0].step_ms * settings.sampler.steps * images
    return 600 + 20 * latency


def worker_parts(problem: SearchProblem, costs: dict[float, WidthCost]) -> EvaluatorParts:
    """Return the parts of an evaluator on a worker, with the worker's device, threads, batch and engine."""
    settings = problem.settings
    parts = _parts(problem, costs, worker_device(settings), threads_per_worker(settings))
    return with_scores(parts, problem, [score for score in settings.scores if score.use == "objective"])


def with_scores(parts: EvaluatorParts, problem: SearchProblem, scores: Sequence[ScoreSettings]) -> EvaluatorParts:
    """Return the parts of an evaluator that computes these scores beside FID.

    Raises InputError where one is KID, and the images that it compares with are known by their statistics alone.
    """
    kernel = [score.name for score in scores if score.function == KID]
    real = load_real_features(problem) if kernel else None
    if kernel and real is None:
        raise InputError(
            f"the score {kernel[0]!r} is KID, which needs features of real images, and features.reference has their "
            "statistics alone; leave out features.reference, or the score"
        )
    kernel_scores = () if real is None else tuple(KernelScore(name, real) for name in kernel)
    return replace(parts, scores=user_scores(scores), kernel_scores=kernel_scores)


def local_parts(problem: SearchProblem, costs: dict[float, WidthCost], threads: int = 0) -> EvaluatorParts:
    """Return the parts of an evaluator on this process's CPU; `threads` 0 leaves torch's number of threads."""
    return _parts(problem, costs, "cpu", threads)


def _parts(problem: SearchProblem, costs: dict[float, WidthCost], device: str, threads: int) -> EvaluatorParts:
    settings = problem.settings
    like_worker = device == worker_device(settings)
    given = settings.evaluation.batch
    batch = (costs[1.0].batch or CPU_BATCH) if given == "auto" else given
    return EvaluatorParts(
        problem.card,
        problem.weights,
        problem.features,
        problem.reference,
        settings.sampler,
        costs,
        batch if like_worker else min(CPU_BATCH, batch),
        device,
        threads,
        # A driver without the workers' device runs the engine that every device can run.
        costs[1.0].engine if like_worker else PLAIN,
        settings.workers.prefix_mb,
        decoder=problem.decoder,
        fitted=read_fitted_weights(settings.search_directory),
    )


def user_scores(scores: Iterable[ScoreSettings]) -> tuple[UserScore, ...]:
    """Return a user's own scores as an evaluator takes them; KID is none of them."""
    return tuple(UserScore(score.name, score.function) for score in scores if score.function != KID)


def worker_device(settings: RunSettings) -> str:
    """Return the device of a worker: `cuda` with a share of a GPU, `cpu` without."""
    return "cuda" if settings.workers.gpus else "cpu"


def threads_per_worker(settings: RunSettings) -> int:
    """Return as many threads as a worker has CPUs, so that workers do not compete for cores."""
    return max(1, int(settings.workers.cpus))


def load_real_features(problem: SearchProblem) -> np.ndarray | None:
    """Return feature rows [N, D] of real images; None where only their statistics exist."""
    return real_features(problem.data, problem.features, problem.reference, problem.supernet.local, pick_device("auto"))
