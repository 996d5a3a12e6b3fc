"""Learn the samplers of a search before it begins, or find those that an earlier search has learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import ray

from stepfront.errors import InputError
from stepfront.search.execution.placement import remote_options
from stepfront.search.learning.chosen import Task
from stepfront.search.learning.kept_samplers import KeptSamplers
from stepfront.search.problem.evaluator_parts import worker_parts
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import SamplerRecord, read_search_samplers
from stepfront.trainers.config import BEST, LEARNT
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.inference.cost import WidthCost
from stepfront.trainers.learning_settings import SamplerKind
from stepfront.trainers.sampler_learning.starts import GRIDS, SAMPLERS

Stage = Callable[[str], None]
"""Called with what is being done."""


def samplers_of_search(
    problem: SearchProblem, costs: dict[float, WidthCost], directory: Path, stage: Stage
) -> dict[int, SamplerRecord]:
    """Return the samplers that the plans of a search run on, by number of steps; none without learnt ones.

    A search keeps those it began with: on another kind of device, learning may end with others.  Those that it lacks
    are taken from beside the supernet, or learnt on workers and put there.  Nothing is written to `directory`.
    """
    sampler = problem.settings.sampler
    if sampler.learnt is None:
        return {}
    counts, records = problem.encoding.step_counts, read_search_samplers(directory)
    lacking = [count for count in counts if count not in records]
    tasks = [sampler_task(problem, costs, (1.0,) * count, sampler.learnt) for count in lacking]
    records |= zip(lacking, find_or_learn(problem, tasks, stage), strict=True)
    return {count: records[count] for count in counts}


def sampler_task(
    problem: SearchProblem,
    costs: dict[float, WidthCost],
    widths: tuple[float, ...],
    learnt: SamplerKind,
    own: Plan | None = None,
) -> Task:
    """Return the task of learning the sampler of a plan; `own` is the plan on its sampler so far, where it has one."""
    settings, solver = problem.settings, problem.settings.sampler.solver
    learning = settings.learning
    any_solver = solver in (BEST, LEARNT)
    if learnt != "solver" and not any_solver and not learning.solvers:
        learning = learning.model_copy(update={"solvers": (solver,)})
    given = () if any_solver or settings.sampler.times == LEARNT else ((solver, settings.sampler.grid),)
    hand = tuple(product(learning.solvers, GRIDS)) if learning.solvers else (*given, *SAMPLERS)
    return Task(worker_parts(problem, costs), widths, learnt, learning, settings.evaluation.images, hand, own)


def find_or_learn(
    problem: SearchProblem, tasks: Sequence[Task], stage: Stage, check_interrupt: Callable[[], None] = lambda: None
) -> list[SamplerRecord]:
    """Return the record of each task: from beside the supernet, or learnt on workers and put there."""
    kept = KeptSamplers(problem.supernet.local, problem.supernet.uri)
    records = {task.key: found for task in tasks if (found := kept.find(task)) is not None}
    missing = [task for task in tasks if task.key not in records]
    if missing:
        workers = problem.settings.workers
        run = ray.remote(**remote_options(workers))(_run)
        waiting = {run.remote(task): task for task in missing}
        while waiting:
            what = "measuring solvers" if missing[0].learnt == "closed_form" else "learning samplers"
            stage(f"{what}, {len(missing) - len(waiting)} of {len(missing)} done")
            while not (ready := ray.wait(list(waiting), num_returns=1, timeout=1)[0]):
                check_interrupt()
            task = waiting.pop(ready[0])
            records[task.key] = _result(ready[0])
            kept.keep(task, records[task.key])
    return [records[task.key] for task in tasks]


def _result(done: ray.ObjectRef[SamplerRecord]) -> SamplerRecord:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):  # one line, without the worker's traceback
            raise InputError(str(error.cause)) from None
        raise


def _run(task: Task) -> SamplerRecord:
    return task.run()
