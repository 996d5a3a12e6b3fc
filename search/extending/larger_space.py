"""Express the plans of a search in a larger space, so that its trials count there as if they had been proposed in it.

A space is larger where it holds every plan of the one before: the same variants per step, times and solver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from stepfront.errors import InputError
from stepfront.search.config import SpaceSettings
from stepfront.search.earlier.usable_plans import exact_levels
from stepfront.search.genomes.encodings import SKIP_LEVEL, Encoding, Levels
from stepfront.search.genomes.sampler_genes import SamplerGenes
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.study.compatibility import EARLIER_SPACES, SPEC, EarlierGenomes, StudySpec
from stepfront.search.study.optuna_storage import read_study
from stepfront.trainers.validation import validate
from stepfront.trainers.variant import SKIP, runs_text


def earlier_genomes(problem: SearchProblem, may_widen: bool) -> EarlierGenomes:
    """Return how trials of earlier spaces of this search are read in the space of the problem."""
    return EarlierGenomes(partial(genome_map, problem), may_widen)


def genome_map(problem: SearchProblem, space: Mapping[str, Any]) -> Callable[[str], str]:
    """Return the function from genomes of a space, as a study stores it, to those of the problem's space.

    The function raises InputError for a plan that the problem's space lacks.
    """
    before, now = _encoding_of(problem, space), problem.encoding

    def mapped(genome: str) -> str:
        levels = before.unpack(genome)
        found = _same_plan(levels, before, now, problem)
        if found is None:
            raise InputError(f"{runs_text(before.step_variants(levels))}; possible: {_possible(levels, before, now)}")
        return now.pack(found)

    return mapped


def check_larger(problem: SearchProblem, directory: Path) -> None:
    """Raise InputError where a plan of the search in `directory` is none of the problem's space; writes nothing."""
    attributes, trials = read_study(problem.settings.storage, directory)
    spec = attributes[SPEC]
    genome_of = StudySpec({}, tuple(spec.get(EARLIER_SPACES, ())), spec).genome_of(partial(genome_map, problem))
    lost: list[str] = []
    for trial in trials:
        try:
            genome_of(trial)
        except InputError as error:
            lost.append(str(error))
    if lost:
        raise InputError(
            f"{len(lost)} of the {len(trials)} plans of this search are none of the space that was given, such as "
            f"{min(lost, key=len)}"
        )


def _same_plan(levels: Levels, before: Encoding, now: Encoding, problem: SearchProblem) -> Levels | None:
    """Return the levels of another encoding that are the same plan; None where there are none."""
    found, own = exact_levels(before.step_variants(levels), now), problem.settings.sampler
    solver, grid = before.sampler_of(levels) or (own.solver, own.grid)
    if found is None or not isinstance(now, SamplerGenes):
        return found if (solver, grid) == (own.solver, own.grid) else None
    return now.on_sampler(found, solver, grid) if solver in now.solvers and grid in now.grids else None


def _encoding_of(problem: SearchProblem, space: Mapping[str, Any]) -> Encoding:
    """Return the encoding of a space that a study stores."""
    settings = problem.settings
    sampler = settings.sampler.model_copy(update={"steps": space["sampler"]["steps"]})
    changed = settings.model_copy(update={"space": validate(SpaceSettings, space["space"]), "sampler": sampler})
    return replace(problem, settings=changed).encoding


def _possible(levels: Levels, before: Encoding, now: Encoding) -> str:
    """Return in words which space would hold a plan that `now` lacks."""
    steps = {step for step in before.step_variants(levels) if step.width != SKIP} - set(now.variants)
    if steps:
        return f"space.variants with {', '.join(sorted(map(str, steps)))}"
    if (levels[: before.units] == SKIP_LEVEL).any() and not now.of_widths.skip:
        return "a space.skip with which plans may skip steps, as this one does"
    stages = now.steps * before.units // before.steps
    if now.steps != before.steps and stages != now.units and stages * before.steps == now.steps * before.units:
        return f"space.stages={stages}, so that a stage is as long as before"
    if now.steps != before.steps:
        return "more steps with space.skip=even alone, where a plan of any number of steps has a grid of its own"
    return "the stages so far or a multiple of them, the cuts so far or more, and the solvers and grids so far"
