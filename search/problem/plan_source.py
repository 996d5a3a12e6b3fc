"""Prepare what initial plans, baselines and the model of FID are built from."""

from __future__ import annotations

import numpy as np

from stepfront.arrays import Array
from stepfront.search.algorithm.encodings import Encoding
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.initial_plans.earlier_search import earlier_models
from stepfront.search.initial_plans.plan_kinds import PlanSource
from stepfront.search.problem.pricing import affordability
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.run_directory import keep_earlier
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.inference.cost import WidthCost


def make_plan_source(
    problem: SearchProblem, costs: dict[float, WidthCost], encoding: Encoding | None = None
) -> PlanSource:
    """Return what the first generation and, with the encoding of widths alone, the baselines are built from."""
    encoding = encoding or problem.encoding
    columns = [problem.encoding.variants.index(variant) for variant in encoding.variants]
    plain = [problem.card.network.widths.index(encoding.widths[level]) for level in encoding.plain_levels]

    def errors_of(steps: int) -> tuple[Array, Array]:
        start, errors = problem.step_errors.between(problem.times_of(steps))
        return start, errors[..., plain]

    return PlanSource(
        encoding=encoding,
        width_costs=np.array([costs[variant.width].macs_of(variant) for variant in encoding.variants]),
        half_log_snr=noise_schedule(problem.card.diffusion).half_log_snr(np.array(problem.times)),
        gap=lambda: problem.gap[:, columns],
        errors_of=errors_of,
        seed=problem.settings.search_seed,
        affordable=affordability(problem, costs, encoding),
        earlier=keep_earlier(problem.settings, problem.settings.search_directory),
    )


def make_plan_features(problem: SearchProblem) -> PlanFeatures:
    """Return what the model of FID reads from a plan; earlier searches' tables are copied and read for it."""
    copies = keep_earlier(problem.settings, problem.settings.search_directory)
    earlier = earlier_models(problem.settings.initial_plans, problem.encoding, problem.gap, copies)
    return PlanFeatures(problem.encoding, problem.gap, earlier, problem.settings.screen.coding)
