"""Evaluate plans in resident Ray workers, and explain in a few words why an evaluation failed.

There are two kinds of worker: a Tune Trainable that is reused (tune_worker.py), and a plain actor that scores lists of
plans.  The latter starts without Ray Tune, whose import takes a second.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation

if TYPE_CHECKING:
    from stepfront.trainers.evaluator import EvaluatorParts
    from stepfront.trainers.inference.prefix_cache import Shared

Evaluate = Callable[[Plan, int, int], Evaluation]
"""Evaluates a plan: plan, images, noise seed -> evaluation."""

Load = Callable[[], Evaluate]
"""Makes an `Evaluate` inside a worker; what it carries travels through Ray's object store."""


class LoadEvaluator:
    """Load the real evaluator in a worker.

    All workers of a node share its arrays, read-only; with `shared`, they also share the states of recent plans.
    """

    def __init__(self, parts: EvaluatorParts, shared: Shared | None = None) -> None:
        self.parts, self.shared = parts, shared
        _ = parts.reference.triangle  # takes seconds in 2,048 dimensions; computed once, it travels with the reference
        if parts.second is not None:
            _ = parts.second.reference.triangle

    def __call__(self) -> Evaluate:
        from stepfront.trainers.evaluator import Evaluator  # torch: a worker is there before it has that

        return Evaluator(self.parts, self.shared)


class StoredLoad:
    """A load in Ray's object store, which a worker gets, with all imports of it, at its first evaluation."""

    def __init__(self, load: Load) -> None:
        self._reference = ray.put(load)

    def __call__(self) -> Evaluate:
        load: Load = ray.get(self._reference)
        return load()


class EvaluationError(Exception):
    """An evaluation without a score; its message is the reason, in one line."""

    before: tuple[list[tuple[Any, ...]], str] = ([], "")
    """The evaluations of the same packet that came before, as tuples, and the worker's name."""


def attempt(load: Callable[[], Evaluate], plan: Plan, images: int, noise_seed: int) -> Evaluation:
    """Evaluate a plan; raises EvaluationError when there is no score.

    The caller ends a worker that raises.  Whatever it broke (a device without memory, a context that is no longer
    valid) must not affect the next plan.
    """
    try:
        evaluation = load()(plan, images, noise_seed)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
        raise EvaluationError(" ".join(reason.split())[:500]) from None
    if evaluation.error:
        raise EvaluationError(evaluation.error)
    return evaluation


class ListWorker:
    """A worker that scores lists of given plans: baselines and confirmations.  `PlanScorer` makes actors of it."""

    def __init__(self, load: Load) -> None:
        self._evaluate = load()

    def ready(self) -> None:
        """Return once the evaluator is loaded."""

    def score(self, plan: Plan, images: int, noise_seed: int) -> Evaluation:
        """Return the evaluation of a plan; raises EvaluationError when there is no score."""
        return attempt(lambda: self._evaluate, plan, images, noise_seed)


def worker_name() -> str:
    """Return node and process, such as `127.0.0.1:4711`."""
    return f"{ray.util.get_node_ip_address()}:{os.getpid()}"


def evaluation_error(error: BaseException | None) -> EvaluationError | None:
    """Return the error of the evaluation that a worker raised; None where it ended in another way."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
    return cause if isinstance(cause, EvaluationError) else None


def reason_of(error: BaseException | None) -> str:
    """Return in a few words why an evaluation failed."""
    if (raised := evaluation_error(error)) is not None:
        return str(raised)
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause if error.cause is not None else error
        return f"{type(cause).__name__}: {cause}"[:300]
    message = str(error)
    # Of any lost process Ray says that it may have been killed "due to high memory usage", and names its node.
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "low on memory" in message:
        return "its worker ran out of memory"
    lost = isinstance(error, ray.exceptions.NodeDiedError)
    if lost or "node has died" in message or "node was terminated" in message:
        return "its node was lost"
    return "its worker died"


def overdue(limit: float) -> str:
    """Return why an evaluation failed whose worker was ended after `limit` seconds."""
    return f"it took longer than {limit:.0f} s (workers.limit_minutes)"


def end_worker(actor: Any) -> None:
    """End a worker at once."""
    with contextlib.suppress(Exception):  # it may have ended already
        ray.kill(actor)
