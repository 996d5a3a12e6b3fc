"""Prepare what initial plans, baselines and the model of FID are built from."""

from __future__ import annotations

import numpy as np

from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.initial_plans.earlier_search import earlier_models
from stepfront.search.initial_plans.plan_kinds import PlanSource
from stepfront.search.problem.pricing import affordability
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.run_directory import keep_earlier
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.inference.cost import WidthCost


def make_plan_source(problem: SearchProblem, costs: dict[float, WidthCost]) -> PlanSource:
    """Return what the first generation and the baselines are built from."""
    return PlanSource(
        encoding=problem.encoding,
        width_costs=np.array([float(costs[width].macs) for width in problem.card.network.widths]),
        half_log_snr=noise_schedule(problem.card.diffusion).half_log_snr(np.array(problem.times)),
        gap=lambda: problem.gap,
        errors_of=lambda steps: problem.step_errors.between(problem.times_of(steps)),
        seed=problem.settings.search_seed,
        affordable=affordability(problem, costs),
        earlier=keep_earlier(problem.settings, problem.settings.search_directory),
    )


def make_plan_features(problem: SearchProblem) -> PlanFeatures:
    """Return what the model of FID reads from a plan; earlier searches' tables are copied and read for it."""
    copies = keep_earlier(problem.settings, problem.settings.search_directory)
    earlier = earlier_models(problem.settings.initial_plans, problem.encoding, problem.gap, copies)
    return PlanFeatures(problem.encoding, problem.gap, earlier, problem.settings.screen.coding)
