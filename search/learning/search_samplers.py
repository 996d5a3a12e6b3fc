"""Learn the samplers of a search before it begins, or find those that an earlier search has learnt."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import ray

from stepfront.errors import InputError, first_line
from stepfront.search.config import WorkerSettings
from stepfront.search.execution.placement import remote_options, worker_count
from stepfront.search.execution.worker import reason_of
from stepfront.search.learning.chosen import SamplerToLearn
from stepfront.search.learning.distance_features import distance_features
from stepfront.search.learning.earlier_starts import with_earlier_starts
from stepfront.search.learning.kept_samplers import KeptSamplers
from stepfront.search.learning.unfinished import ProgressReport
from stepfront.search.problem.evaluator_parts import worker_parts
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import SamplerRecord, read_search_samplers
from stepfront.trainers.config import BEST, LEARNT
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluator import EvaluatorParts
from stepfront.trainers.inference.cost import WidthCost
from stepfront.trainers.learning_settings import SamplerKind
from stepfront.trainers.metrics.features import PackedFeatures
from stepfront.trainers.sampler_learning.starts import GRIDS, SAMPLERS

Stage = Callable[[str], None]
"""Called with what is being done."""


class LostWorkerError(InputError):
    """A worker that learnt a sampler was lost, which may not happen again."""


def samplers_of_search(
    problem: SearchProblem, costs: dict[float, WidthCost], directory: Path, stage: Stage
) -> dict[int, SamplerRecord]:
    """Return the samplers that the plans of a search run on, by number of steps; none without learnt ones.

    A search keeps those it began with: on another kind of device, learning may end with others.  Those that it lacks
    are taken from beside the supernet, or learnt on workers and put there.  Those of earlier searches that this one
    begins with are further starts: what is needed of those searches is kept in the search's own directory.  The
    samplers are not written to `directory`.
    """
    sampler = problem.settings.sampler
    if sampler.learnt is None:
        return {}
    counts, records = problem.encoding.step_counts, read_search_samplers(directory)
    parts, missing = worker_parts(problem, costs), [n for n in counts if n not in records]
    features = distance_features(problem) if missing and sampler.learnt != "closed_form" else None
    tasks = {n: sampler_task(problem, parts, (1.0,) * n, sampler.learnt, features=features) for n in missing}
    tasks = with_earlier_starts(problem, tasks, stage)
    found = find_or_learn(problem, list(tasks.values()), stage)
    records |= {count: found[task.key] for count, task in tasks.items()}
    return {count: records[count] for count in counts}


def sampler_task(
    problem: SearchProblem,
    parts: EvaluatorParts,
    widths: tuple[float, ...],
    learnt: SamplerKind,
    own: Plan | None = None,
    features: PackedFeatures | None = None,
) -> SamplerToLearn:
    """Return the task of learning the sampler of a plan; `own` is the plan on its sampler so far, where it has one.

    `features` are those of the distance, as `distance_features` returns them.
    """
    settings, solver = problem.settings, problem.settings.sampler.solver
    learning = settings.learning
    any_solver = solver in (BEST, LEARNT)
    if learnt != "solver" and not any_solver and not learning.solvers:
        learning = learning.model_copy(update={"solvers": (solver,)})
    given = () if any_solver or settings.sampler.times == LEARNT else ((solver, settings.sampler.grid),)
    hand = tuple(product(learning.solvers, GRIDS)) if learning.solvers else (*given, *SAMPLERS)
    return SamplerToLearn(parts, widths, learnt, learning, settings.evaluation.images, hand, own, features)


def _end(task: SamplerToLearn, error: InputError) -> None:
    raise error


def find_or_learn(
    problem: SearchProblem,
    tasks: Sequence[SamplerToLearn],
    stage: Stage,
    check_interrupt: Callable[[], None] = lambda: None,
    on_failure: Callable[[SamplerToLearn, InputError], None] = _end,
) -> dict[str, SamplerRecord]:
    """Return the records by the keys of their tasks: from beside the supernet, or learnt on workers and put there.

    All tasks have the same parts and features.  `on_failure` is called with a task that fails and the reason in one
    line, and its record is left out; by default, the error ends the others.
    """
    kept = KeptSamplers(problem.supernet.local, problem.supernet.uri)
    records = {task.key: found for task in tasks if (found := kept.find(task)) is not None}
    to_learn = [task for task in tasks if task.key not in records]
    with contextlib.ExitStack() as held:
        missing = [replace(task, unfinished=held.enter_context(kept.unfinished(task))) for task in to_learn]
        for task, done in _done(missing, problem.settings.workers, stage, check_interrupt):
            try:
                records[task.key] = _result(done)
            except InputError as error:
                on_failure(task, error)
            else:
                kept.keep(task, records[task.key])
                kept.remove_unfinished(task)
    for record in records.values():
        for line in filter(None, (record.carried, record.refusal)):
            stage(line)
    return records


def _done(
    missing: Sequence[SamplerToLearn], workers: WorkerSettings, stage: Stage, check_interrupt: Callable[[], None]
) -> Iterator[tuple[SamplerToLearn, ray.ObjectRef[SamplerRecord]]]:
    """Let workers learn, and yield each task when it has ended; its remaining time is reported meanwhile."""
    if not missing:
        return
    run, begin, seconds = ray.remote(**remote_options(workers))(_run), time.monotonic(), list[float]()
    parts = ray.put((missing[0].parts, missing[0].features))
    waiting = {run.remote(parts, _without_parts(task)): task for task in missing}
    what = "measuring solvers" if missing[0].learnt == "closed_form" else "learning samplers"
    count = worker_count(workers)
    report = ProgressReport(what, stage, count)
    while waiting:
        stage(f"{what}, {len(missing) - len(waiting)} of {len(missing)} done")
        while not (ready := ray.wait(list(waiting), num_returns=1, timeout=1)[0]):
            check_interrupt()
            report.look([task.unfinished for task in waiting.values()], seconds)
        yield waiting.pop(ready[0]), ready[0]
        ended = len(missing) - len(waiting)
        seconds = [(time.monotonic() - begin) * min(count, ended) / ended] * ended


def _result(done: ray.ObjectRef[SamplerRecord]) -> SamplerRecord:
    """Return what a worker has learnt.  Raises InputError with the reason in one line where it has not.

    LostWorkerError where that is no fault of the task.
    """
    try:
        return ray.get(done)
    except ray.exceptions.RayError as error:  # it raised, died, or ran out of memory
        if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, InputError):
            raise InputError(str(error.cause)) from None
        kind = InputError if isinstance(error, ray.exceptions.RayTaskError) else LostWorkerError
        raise kind(f"learning a sampler failed: {first_line(error, reason_of(error))}") from None


def _without_parts(task: SamplerToLearn) -> dict[str, Any]:
    """Return the other fields of a task: the parts and features, with their weights, travel once for all tasks."""
    return {field.name: getattr(task, field.name) for field in fields(task) if field.name not in ("parts", "features")}


def _run(shared: tuple[EvaluatorParts, PackedFeatures | None], other: Mapping[str, Any]) -> SamplerRecord:
    task = SamplerToLearn(shared[0], **other, features=shared[1])
    try:
        return task.run()
    except InputError:  # it would fail again in the same way
        task.unfinished.remove()
        raise
