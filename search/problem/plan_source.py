"""Prepare what initial plans, baselines and the model of FID are built from."""

from __future__ import annotations

from functools import partial

import numpy as np

from stepfront.arrays import Array
from stepfront.search.algorithm.surrogate import EarlierModel, PlanFeatures
from stepfront.search.earlier.earlier_models import earlier_models
from stepfront.search.earlier.kept_tables import keep_earlier
from stepfront.search.genomes.encodings import Encoding
from stepfront.search.initial_plans.plan_kinds import PlanSource
from stepfront.search.problem.pricing import affordability
from stepfront.search.problem.problem import SearchProblem
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
        half_log_snr=_half_log_snr_of(problem, len(problem.times)),
        gap=lambda: problem.gap[:, columns],
        errors_of=errors_of,
        seed=problem.settings.search_seed,
        affordable=affordability(problem, costs, encoding) or (lambda levels: True),
        earlier=keep_earlier(problem.settings, problem.settings.search_directory),
        half_log_snr_of=partial(_half_log_snr_of, problem),
    )


def make_plan_features(problem: SearchProblem) -> PlanFeatures:
    """Return what the model of FID reads from a plan, with what earlier searches predict."""
    models = tuple(make_earlier_models(problem).values())
    return PlanFeatures(problem.encoding, problem.gap, models, problem.settings.screen.coding)


def make_earlier_models(problem: SearchProblem) -> dict[str, EarlierModel]:
    """Return the models of the searches that this one starts from, whose tables are copied for it."""
    copies = keep_earlier(problem.settings, problem.settings.search_directory)
    plans, here = problem.settings.initial_plans, partial(_half_log_snr_of, problem)
    return earlier_models(plans, problem.encoding, problem.gap, copies, here)


def _half_log_snr_of(problem: SearchProblem, steps: int) -> Array:
    """Return the half log-SNR of each step of the search's sampler with so many steps, [steps]."""
    return noise_schedule(problem.card.diffusion).half_log_snr(np.array(problem.times_of(steps)))
