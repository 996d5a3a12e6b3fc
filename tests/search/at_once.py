"""Workers without processes: what a search asks of Ray is done at once, in the process of the test.

A worker of Ray takes seconds to start, and tests of what a search does with its results need none.  What travels is
pickled as Ray would pickle it, errors come back as Ray's, and each worker loads its own evaluator.  A search with Ray's
workers has the same scores (tests/search/execution/test_scores_anywhere.py).  Ray itself is in the tests there, and in
those that start processes.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.tune.search import Searcher

from stepfront.search.config import WorkerSettings
from stepfront.search.execution.placement import slots_now
from stepfront.search.execution.tune_searcher import Job, LedgerSearcher
from stepfront.search.execution.tune_worker import EvaluationWorker
from stepfront.search.execution.worker import EvaluationError, Load
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.problem.worker_measurements import measure_widths
from stepfront.search.study.ledger import Ledger

NODE = {"NodeID": "here", "NodeManagerAddress": "127.0.0.1", "Alive": True, "Resources": {"CPU": 2.0}}


def travelled(value: Any) -> Any:
    """Return what a process would receive."""
    return ray.cloudpickle.loads(ray.cloudpickle.dumps(value))


class Stays:
    """Something that is not copied where it travels."""

    def __reduce__(self) -> Any:
        return _staying, (id(_STAYING.setdefault(id(self), self)),)


_STAYING: dict[int, Stays] = {}


def _staying(key: int) -> Stays:
    return _STAYING[key]


class Reference(Stays):
    """A value, or the error of the call that should have made it."""

    def __init__(self, value: Any = None, error: Exception | None = None) -> None:
        self.value, self.error = value, error


def call(function: Callable[..., Any], *given: Any) -> Reference:
    """Call a function with copies of what is given; references are given as what they refer to, as Ray does."""
    failed = [each.error for each in given if isinstance(each, Reference) and each.error is not None]
    if failed:
        return Reference(error=failed[0])
    values = [each.value if isinstance(each, Reference) else travelled(each) for each in given]
    try:
        return Reference(travelled(function(*values)))
    except Exception as error:
        return Reference(error=ray.exceptions.RayTaskError("call", repr(error), error).as_instanceof_cause())


class Remote:
    """What `ray.remote` makes of a function or of a class."""

    def __init__(self, what: Callable[..., Any]) -> None:
        self._what = what

    def options(self, **options: Any) -> Remote:
        """Take options that say where it runs."""
        return self

    def remote(self, *given: Any) -> Any:
        """Call the function, or make an actor of the class."""
        return Actor(self._what, given) if isinstance(self._what, type) else call(travelled(self._what), *given)


class Actor(Stays):
    """An actor whose methods answer at once; where it could not be made, they answer with that error."""

    def __init__(self, what: type, given: Sequence[Any]) -> None:
        made: list[Any] = []
        self._error = call(lambda *values: made.append(what(*values)), *given).error
        self._made = made

    def __getattr__(self, name: str) -> Any:
        if self._error is not None:
            return SimpleNamespace(remote=lambda *given: Reference(error=self._error))
        return SimpleNamespace(remote=lambda *given: call(getattr(self._made[0], name), *given))


def get(references: Any, timeout: float | None = None) -> Any:
    """Return the value of a reference, or of each; raises the error of its call."""
    if not isinstance(references, Reference):
        return [get(each) for each in references]
    if references.error is not None:
        raise references.error
    return references.value


def wait(references: Sequence[Any], num_returns: int = 1, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
    """Return the first references as those that are ready, and the others."""
    return list(references[:num_returns]), list(references[num_returns:])


def remote(*what: Any, **options: Any) -> Any:
    """Return what `ray.remote` would, with options or without."""
    return Remote(what[0]) if what else Remote


RAY = SimpleNamespace(
    exceptions=ray.exceptions,
    ObjectRef=ray.ObjectRef,
    put=lambda value: Reference(travelled(value)),
    get=get,
    wait=wait,
    remote=remote,
    kill=lambda actor: None,
    nodes=lambda: [NODE],
    cluster_resources=lambda: NODE["Resources"],
    get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: NODE["NodeID"]),
    util=SimpleNamespace(get_node_ip_address=lambda: NODE["NodeManagerAddress"]),
)


def run_trials(
    ledger: Ledger,
    load: Load,
    job: Job,
    workers: WorkerSettings,
    on_result: Callable[[], None],
    limit: float,
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """Evaluate trials until the ledger has none left, by the searcher of Tune, without Tune."""
    slots_now(workers)
    searcher = LedgerSearcher(ledger, job, workers, on_result, limit)
    worker = None
    for trial in map(str, itertools.count()):
        config = searcher.suggest(trial)
        if config == Searcher.FINISHED:
            break
        if worker is None:
            worker = EvaluationWorker.__new__(EvaluationWorker)  # Tune's own part writes logs
            worker.setup({}, load=travelled(load))
        worker.reset_config(travelled(config))
        try:
            searcher.on_trial_complete(trial, travelled(worker.step()))
        except EvaluationError as error:
            worker = None
            searcher.on_plan_failed(trial, error)
        on_step()
    if searcher.error is not None:
        raise searcher.error


_MEASURED: dict[str, Any] = {}


def measured_widths(problem: SearchProblem) -> Any:
    """Return what the widths of a supernet cost, measured once for all searches of a process that would find the same.

    A measurement takes longer than the trials of a tiny search.
    """
    settings = problem.settings
    asked = (problem.card.digest, settings.sampler.guidance, settings.sampler.steps, problem.variants)
    key = repr((*asked, settings.workers, settings.evaluation, settings.budget))
    if key not in _MEASURED:
        _MEASURED[key] = measure_widths(problem)
    return _MEASURED[key]


@contextlib.contextmanager
def workers_at_once() -> Iterator[None]:
    """Let searches, baselines and confirmations run without Ray."""
    with pytest.MonkeyPatch.context() as patch:
        for name in USERS_OF_RAY:
            patch.setattr(f"stepfront.search.{name}.ray", RAY)
        for name in SESSIONS:
            patch.setattr(f"stepfront.search.{name}.ray_session", contextlib.nullcontext)
        patch.setattr("stepfront.search.driver.search.run_trials", run_trials)
        patch.setattr("stepfront.search.problem.costs.measure_widths", measured_widths)
        yield


USERS_OF_RAY = (
    *("execution.plan_scorer", "execution.worker", "execution.placement", "execution.shared_prefixes"),
    *("problem.worker_measurements", "problem.decoder_cost", "learning.search_samplers"),
)
SESSIONS = ("driver.search", "driver.fit", "scoring.held_out_scorer", "scoring.baselines")
