"""Give learning the samplers of earlier searches as further starts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from stepfront.errors import InputError
from stepfront.search.earlier.earlier_samplers import WantedSamplers
from stepfront.search.earlier.kept_tables import keep_earlier, read_steps
from stepfront.search.learning.chosen import SamplerToLearn
from stepfront.search.learning.kept_samplers import KeptSamplers
from stepfront.search.problem.problem import SearchProblem
from stepfront.tables.samplers import earlier_start_name
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.sampler_learning.starts import EarlierStart


def with_earlier_starts(
    problem: SearchProblem, tasks: Mapping[int, SamplerToLearn], stage: Callable[[str], None]
) -> dict[int, SamplerToLearn]:
    """Return the tasks, by number of steps, with the samplers of the earlier searches that this one begins with.

    A sampler that lies beside this supernet for the very task is not learnt from again: the task finds it.  What does
    not fit is reported in one line per earlier search.
    """
    settings, tasks = problem.settings, dict(tasks)
    if not tasks or settings.sampler.learnt in (None, "closed_form"):
        return tasks
    own = next(iter(tasks.values()))
    wanted = WantedSamplers(own.learnt, noise_schedule(problem.card.diffusion), own.settings.solvers)
    copies = keep_earlier(settings, settings.search_directory)
    known = _known_digests(problem, tasks) if copies else {}
    for search, place in copies.items():
        steps = read_steps(place)
        if steps is None or not settings.initial_plans[search]:
            continue
        carried = wanted.carried(steps.name, place, steps.times, steps.half_log_snr, sorted(tasks))
        if carried.sentence:
            stage(carried.sentence)
        for count, sampler in carried.samplers.items():
            if sampler.digest not in known[count]:
                start = EarlierStart(earlier_start_name(steps.name), sampler)
                tasks[count] = replace(tasks[count], earlier=(*tasks[count].earlier, start))
                known[count].add(sampler.digest)
    return tasks


def _known_digests(problem: SearchProblem, tasks: Mapping[int, SamplerToLearn]) -> dict[int, set[str]]:
    """Return the digest of the sampler that lies beside the supernet for each task without earlier searches."""
    kept = KeptSamplers(problem.supernet.local, problem.supernet.uri)
    known: dict[int, set[str]] = {count: set() for count in tasks}
    for count, task in tasks.items():
        with contextlib.suppress(InputError):  # of a damaged file: it is another task's
            if (found := kept.find(task)) is not None:
                known[count].add(found.sampler.digest)
    return known
