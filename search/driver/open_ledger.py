"""Open the study of a search with the sampler, screening and limits of its settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stepfront.checksums import place_of_search
from stepfront.errors import InputError
from stepfront.search.algorithm.nsga2 import BlockNSGAII
from stepfront.search.algorithm.proxies import ProxyScore
from stepfront.search.algorithm.screening import Screening, make_screening
from stepfront.search.config import RunSettings
from stepfront.search.extending.larger_space import earlier_genomes
from stepfront.search.initial_plans.plan_kinds import make_initial_plans
from stepfront.search.objectives import Objectives
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.plan_source import make_plan_features, make_plan_source
from stepfront.search.problem.pricing import affordability, level_prices
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.problem.spec import comparison_spec
from stepfront.search.records.run_directory import written_settings
from stepfront.search.records.score_noise import ScoreNoise, read_score_noise
from stepfront.search.study.budget import Limits
from stepfront.search.study.compatibility import LEARNT, SPEC, compared
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.optuna_storage import finished_numbers, open_storage, study_attributes, study_name
from stepfront.search.study.views import recorded_numbers
from stepfront.tables.schema import TRIALS
from stepfront.trainers.evaluator import Evaluator
from stepfront.trainers.inference.cost import WidthCost


def how_to_rebuild(directory: Path) -> str:
    """Return what is done about the study of a search that is damaged or lacks trials."""
    repair = f"stepfront doctor {place_of_search(directory)} --repair"
    return f"`{repair}` rebuilds it from trials.parquet, `--fresh` starts over"


def open_ledger(problem: SearchProblem, costs: dict[float, WidthCost], directory: Path, extend: bool = False) -> Ledger:
    """Open the study in `directory` with the sampler of the settings.

    With `extend` the settings may have a larger space than the study.  So may the settings that are written in the
    directory: a call that made the space larger was killed before the study had it.
    """
    settings = problem.settings
    initial = make_initial_plans(settings.initial_plans, make_plan_source(problem, costs))
    screening = _make_screening(problem, costs)
    sampler = BlockNSGAII(
        problem.encoding,
        settings.variation,
        settings.search_seed,
        initial,
        offspring=settings.screen.offspring,
        screen=screening,
        affordable=affordability(problem, costs),
        neighbours=settings.screen.neighbours,
        lead=screening.lead if screening is not None and screening.has_earlier else None,
        climb=settings.screen.steps_of_climb,
    )
    budget = settings.budget
    steps = len(problem.times)
    latency = 0.0 if costs[1.0].latency_ms is None else costs[1.0].step_ms
    ledger = Ledger(
        storage=open_storage(settings.storage, directory),
        name=study_name(settings.storage, directory),
        sampler=sampler,
        objectives=Objectives.of_settings(settings),
        constraints=settings.evaluation.constraints,
        limits=Limits(budget.trials, budget.minutes and 60 * budget.minutes, budget.tflops, budget.patience),
        spec=comparison_spec(problem, costs),
        full_costs={"gflops": costs[1.0].step_gflops * steps, "latency_ms": latency * steps},
        attempts=settings.workers.attempts,
        encoding=problem.encoding,
        earlier=earlier_genomes(problem, extend or _is_space_as_written(settings, directory)),
    )
    if screening is not None:
        screening.watch(ledger.progress)
    expect_noise(ledger, problem, read_score_noise(directory, settings.evaluation))
    return ledger


def _is_space_as_written(settings: RunSettings, directory: Path) -> bool:
    written = written_settings(directory)
    return written is not None and (written.space, written.sampler) == (settings.space, settings.sampler)


def expect_noise(ledger: Ledger, problem: SearchProblem, noise: ScoreNoise | None) -> None:
    """Let growth of the hypervolume count where it exceeds the noise between plans that differ in one unit.

    That is how far children differ from their parents, at least.  None changes nothing.
    """
    ledger.progress.expect_noise(0.0 if noise is None else noise.difference_of(1 / problem.encoding.units))


def check_nothing_lost(settings: RunSettings, directory: Path) -> None:
    """Raise InputError when the study is damaged or lacks trials that the table beside it has.

    A search that continued would write over those trials.
    """
    study, how = finished_numbers(settings.storage, directory), how_to_rebuild(directory)
    if study is None:
        raise InputError(f"the study in {directory} is damaged; {how}")
    if lost := recorded_numbers(directory) - study:
        raise InputError(f"the study in {directory} lacks {len(lost)} of the trials in {TRIALS}; {how}")


def check_continues(
    problem: SearchProblem, costs: dict[float, WidthCost], directory: Path, extend: bool = False
) -> None:
    """Raise InputError where `open_ledger` would, by the settings alone; a search that never began has no others.

    What they are to learn and to measure would take the place of what the search began with.
    """
    settings = problem.settings
    stored = study_attributes(settings.storage, directory).get(SPEC)
    if stored is not None:
        known = {key: value for key, value in stored.items() if key != LEARNT}
        compared(known, comparison_spec(problem, costs), extend or _is_space_as_written(settings, directory))


def _make_screening(problem: SearchProblem, costs: dict[float, WidthCost]) -> Screening | None:
    """Return the screening of the settings; None where every child is evaluated."""
    evaluation, prices = problem.settings.evaluation, level_prices(problem, costs)
    objectives = Objectives.of_settings(problem.settings)

    def paired() -> ProxyScore:
        evaluator = Evaluator(local_parts(problem, costs))
        return lambda levels: evaluator.paired(problem.plan_at(levels), evaluation.noise_seed)

    return make_screening(
        problem.settings.screen,
        problem.encoding,
        lambda: make_plan_features(problem),
        lambda plans: np.column_stack([prices[name].of_all(plans) for name in evaluation.objectives[1:]]),
        paired,
        len(objectives.scores),
        objectives.bounds(evaluation.constraints) if evaluation.constraints else None,
    )
