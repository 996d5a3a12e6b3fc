"""The resident evaluation worker: a Tune Trainable that is reused, and a plain actor for scoring lists of plans."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import astuple
from functools import cache
from queue import SimpleQueue
from typing import Any

import ray
from ray import tune

from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation, Evaluator, EvaluatorParts
from stepfront.trainers.inference.prefix_cache import Shared

Evaluate = Callable[[Plan, int, int], Evaluation]
"""plan, images, noise seed -> its evaluation."""

Load = Callable[[], Evaluate]
"""Makes an `Evaluate` inside a worker; what it carries travels through Ray's object store."""


class LoadEvaluator:
    """Loads the real evaluator.  Its arrays are shared, read-only, by all workers of a node; so are, with `shared`, the
    states of recent plans."""

    def __init__(self, parts: EvaluatorParts, shared: Shared | None = None) -> None:
        self.parts, self.shared = parts, shared
        _ = parts.reference.triangle  # seconds of work in 2,048 dimensions: made once, it travels with the reference

    def __call__(self) -> Evaluate:
        return Evaluator(self.parts, self.shared)


NOT_TRIED = "its worker is being ended for an earlier failure"
"""The reason of a plan that was not begun, and is charged with no attempt."""


class EvaluationError(Exception):
    """An evaluation without a score; its message is the reason, in one line."""


def attempt(load: Callable[[], Evaluate], plan: Plan, images: int, noise_seed: int) -> Evaluation:
    """A score, or EvaluationError.

    A worker that raises is ended by its caller: what it broke (a device that ran out of memory, a context that is no
    longer valid) must not reach the next plan.
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


class EvaluationWorker(tune.Trainable):
    """One step evaluates one plan, and begins with the one that it was handed ahead, if any, before the next step.

    Nothing is loaded in `setup`: Tune throws a slowly starting actor away for a warm one, again and again.
    """

    def setup(self, config: dict[str, Any], load: Load | None = None) -> None:
        assert load is not None
        self._config, self._lane = config, Lane(load)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config = new_config
        return True

    def step(self) -> dict[str, Any]:
        evaluation = self._lane.evaluate(self._config["job"], self._config.get("ahead"))
        # A tuple, because Tune flattens mappings on their way to the searcher.
        return {"evaluation": astuple(evaluation), "worker": worker_name(), "done": True}

    def cleanup(self) -> None:
        self._lane.close(timeout=10)


class Lane:
    """Evaluates jobs one after the other, in a thread of its own: it goes on with the next while a result travels."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._jobs: SimpleQueue[tuple[dict[str, Any], Future[Evaluation]] | None] = SimpleQueue()
        self._begun: dict[int, Future[Evaluation]] = {}
        # A daemon: a worker that is ended does not first finish what nobody asks for any more.
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def evaluate(self, job: dict[str, Any], ahead: dict[str, Any] | None) -> Evaluation:
        """The result of `job`, which may have been begun; `ahead` is begun after it."""
        future = self._begun.pop(job["number"], None)
        # What another worker has got instead is dropped; where it runs, it is waited for.
        self._begun = {number: other for number, other in self._begun.items() if not other.cancel()}
        future = future or self._begin(job)
        if ahead is not None and ahead["number"] not in self._begun:
            self._begun[ahead["number"]] = self._begin(ahead)
        return future.result()

    def close(self, timeout: float) -> None:
        """Begins nothing more, and gives what runs so many seconds to end."""
        for future in self._begun.values():
            future.cancel()
        self._jobs.put(None)
        self._thread.join(timeout)

    def _begin(self, job: dict[str, Any]) -> Future[Evaluation]:
        future: Future[Evaluation] = Future()
        self._jobs.put((job, future))
        return future

    def _work(self) -> None:
        load, broken = cache(self._load), False
        while (given := self._jobs.get()) is not None:
            job, future = given
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if broken:
                    raise EvaluationError(NOT_TRIED)
                future.set_result(attempt(load, Plan(*job["plan"]), job["images"], job["noise_seed"]))
            except BaseException as error:
                broken = True
                future.set_exception(error)


class ListWorker:
    """Scores plans that are known beforehand: baselines and confirmations.  Made an actor by the executor."""

    def __init__(self, load: Load) -> None:
        self._evaluate = load()

    def ready(self) -> None:
        """Returns once the evaluator is loaded."""

    def score(self, plan: Plan, images: int, noise_seed: int) -> Evaluation:
        return attempt(lambda: self._evaluate, plan, images, noise_seed)


def worker_name() -> str:
    """Node and process: `127.0.0.1:4711`."""
    return f"{ray.util.get_node_ip_address()}:{os.getpid()}"
