"""Measure samplers on a case: rows of a table, one per sampler and noise seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from benchmarks.samplers.case import FIRST_SEED, Case
from stepfront.plugins import SOLVERS
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import time_grid
from stepfront.trainers.learning_settings import LearningSettings, Learnt
from stepfront.trainers.sampler_learning.learn import learn_sampler
from stepfront.trainers.sampler_learning.pairs import learning_seed
from stepfront.trainers.sampler_learning.starts import GRIDS, SAMPLERS, ClosedForm, different_forms
from stepfront.trainers.variant import parse_runs

LEARNT: dict[str, Learnt] = {
    "learnt times": "times",
    "learnt network times": "network_times",
    "learnt solver": "solver",
}
DETERMINISTIC = [name for name in SOLVERS.ours if not name.startswith("ddpm")]
ALL_SEEDS, GRID_SEEDS = 3, 2
"""Noise seeds of the hand samplers and learnt ones, and of all other pairs of solver and grid."""

Row = dict[str, Any]


def closed_form_rows(case: Case, plan: str, pairs: Sequence[tuple[str, str]], seeds: int) -> Iterator[Row]:
    """Yield the scores of pairs of solver and grid at the widths of a plan, seed by seed."""
    widths = parse_runs(plan)
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for solver, grid in pairs:
            form = ClosedForm(solver, grid, tuple(map(float, time_grid(case.schedule, grid, len(widths)))))
            place = {"plan": plan, "steps": len(widths), "sampler": f"{form.solver}, {form.grid}"}
            more = {"solver": form.solver, "grid": form.grid}
            yield place | more | _scored(case, _plan(form, widths), seed)


def learnt_rows(case: Case, plan: str, kind: str, settings: LearningSettings) -> Iterator[Row]:
    """Learn a sampler of a plan as a search does, and yield its scores and what learning took, one row per seed.

    It starts from the hand samplers of the smallest distance by the first judge, on noise of its own.  It is used where
    its held-out distance and that score are smaller than the best one's.
    """
    widths, seed = parse_runs(plan), learning_seed(settings.seed) + 1
    forms = different_forms(case.schedule, len(widths), SAMPLERS)
    choice = {form: case.first_score(_plan(form, widths), seed) for form in forms}
    starts = sorted(forms, key=lambda form: choice[form])[: settings.starts]
    result = learn_sampler(case.learner(widths), widths, LEARNT[kind], settings, starts=starts)
    learnt = Plan(result.sampler.times, widths, result.sampler.solver, result.sampler)
    score = case.first_score(learnt, seed)
    figures = {
        "seconds": result.seconds,
        "calls": result.calls,
        "start": result.start_name,
        "used": result.better and score < choice[starts[0]],
        "held_out": result.held_out,
        "start_held_out": result.start_held_out,
        "train": result.train,
        "choice": score,
        "start_choice": choice[starts[0]],
        "learnt": json.dumps(result.sampler.to_json()),
    }
    for seed in range(FIRST_SEED, FIRST_SEED + ALL_SEEDS):
        place = {"plan": plan, "steps": len(widths), "sampler": kind, "solver": result.sampler.solver, "grid": "learnt"}
        yield place | figures | _scored(case, learnt, seed)


def _plan(form: ClosedForm, widths: tuple[float, ...]) -> Plan:
    return Plan(form.times, widths, form.solver)


def _scored(case: Case, plan: Plan, seed: int) -> Row:
    facts = {"seed": seed, "images": case.images, "device": case.device_name, "torch": torch.__version__}
    return facts | {f"FD {name}": score for name, score in case.scores(plan, seed).items()}


def all_pairs() -> list[tuple[str, str]]:
    """Return every deterministic solver on every grid, the hand samplers first."""
    return list(dict.fromkeys([*SAMPLERS, *((solver, grid) for solver in DETERMINISTIC for grid in GRIDS)]))
