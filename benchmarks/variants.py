"""Run the product's own search in this process under several settings, and compare the hypervolumes.

Every variant is a name and overrides of the settings of a run's supernet.  Scores are kept per plan in one file, so
variants share them and an interrupted benchmark continues.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stepfront.search.config import load_settings
from stepfront.search.driver.open_ledger import open_ledger
from stepfront.search.pareto import front_indices, hypervolume, hypervolume_history
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.load import load_problem
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.run_directory import SETTINGS_FILE
from stepfront.trainers.diffusion.conditioning import calls_per_step
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation
from stepfront.trainers.evaluator import Evaluator
from stepfront.trainers.inference.cost import WidthCost, count_width, plan_gflops

TWENTY_STEPS = ("sampler.solver=unipc_2", "sampler.grid=quadratic", "sampler.steps=20", "space.stages=10")
"""The space in which first generations and genes are compared: twenty steps at most, in ten stages."""


@dataclass(frozen=True)
class Searched:
    """The plans of one search and their scores [N, 2], FID and GFLOPs, in the order of their evaluation.

    `driver_seconds` is the CPU time of this process between the evaluations.
    """

    plans: list[Plan]
    scores: np.ndarray
    driver_seconds: float = 0.0

    @property
    def front(self) -> list[int]:
        """Return the places of the plans of its Pareto front."""
        return list(front_indices(self.scores))


class KeptScores:
    """FID per plan, number of images and noise seed, kept in one file per supernet."""

    def __init__(self, problem: SearchProblem, costs: Mapping[float, WidthCost], work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self._path = work / f"fid-{problem.card.digest[:8]}.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._known = {str(key): float(fid) for key, fid in map(json.loads, lines)}
        scale = problem.settings.sampler.guidance
        self._guidance = [] if problem.card.network.classes is None else [{"guidance": scale}]
        self._evaluate = Evaluator(local_parts(problem, dict(costs), 1))

    def __call__(self, plan: Plan, images: int, seed: int) -> float:
        """Return the FID of a plan."""
        # Plans of widths alone, unguided, keep the keys that they had.
        more = [plan.marks] if plan.marks else []
        key = json.dumps([plan.solver, plan.times, plan.widths, images, seed, *more, *self._guidance])
        if key not in self._known:
            self._known[key] = self._evaluate(plan, images, seed).fid
            with open(self._path, "a") as file:
                file.write(json.dumps([key, self._known[key]]) + "\n")
        return self._known[key]


def problem_of(run: Path, place: Path, overrides: Sequence[str]) -> SearchProblem:
    """Return the problem of a run's supernet under overrides; the search would be kept in `place`."""
    base = [f"directory={place}", f"supernet={run / 'supernet'}", "evaluation.samplers=false", "tracking.uri=null"]
    return load_problem(load_settings(run / "supernet" / SETTINGS_FILE, [*base, *overrides]))


def width_costs(problem: SearchProblem) -> dict[float, WidthCost]:
    """Return the counted cost of each width, with the calls that guidance makes per step."""
    card, calls = problem.card, calls_per_step(problem.settings.sampler.guidance)
    shape = (card.image_channels, card.resolution)
    return {w: count_width(card.network, *shape, w).model_copy(update={"calls": calls}) for w in card.network.widths}


def search(run: Path, work: Path, overrides: Sequence[str], seed: int, budget: int, images: int) -> Searched:
    """Search on a run's supernet under overrides of its settings, on noise seed 0."""
    with tempfile.TemporaryDirectory() as place:
        limits = [f"search_seed={seed}", f"budget.trials={budget}", f"evaluation.images={images}"]
        problem = problem_of(run, Path(place), [*overrides, *limits])
        costs = width_costs(problem)
        score = KeptScores(problem, costs, work)
        return search_here(problem, costs, lambda plan: score(plan, images, 0))


def search_here(problem: SearchProblem, costs: dict[float, WidthCost], score: Callable[[Plan], float]) -> Searched:
    """Search with the ledger, the sampler, the initial plans and the screening of the product, one plan at a time."""
    directory, images = problem.settings.search_directory, problem.settings.evaluation.images
    directory.mkdir(parents=True)
    plans, scores, seconds = [], [], 0.0
    with closing(open_ledger(problem, costs, directory)) as ledger:
        begin = time.process_time()
        while (asked := ledger.ask()) is not None:
            plan = problem.plan_of(asked.genome)
            seconds += time.process_time() - begin
            plans.append(plan)
            scores.append((score(plan), plan_gflops(plan, costs)))
            begin = time.process_time()
            ledger.tell(asked.number, _evaluation(*scores[-1], images), "here")
    return Searched(plans, np.array(scores), seconds)


def _evaluation(fid: float, gflops: float, images: int) -> Evaluation:
    return Evaluation(fid, gflops, 1.0, "", images, 0)


def reference_point(found: Sequence[Searched]) -> list[float]:
    """Return a reference point beyond the worst uniform plan: 1.1 times its FID, 1.05 times the greatest cost."""
    uniform = [
        scores
        for one in found
        for plan, scores in zip(one.plans, one.scores, strict=True)
        if len(set(plan.variants)) == 1 and (plan.times, plan.solver) == (one.plans[0].times, one.plans[0].solver)
    ]
    return [1.1 * max(fid for fid, _ in uniform), 1.05 * max(gflops for _, gflops in uniform)]


def share_table(found: Mapping[str, Sequence[Searched]], shown: Sequence[int], images: int) -> pd.DataFrame:
    """Return medians over seeds of the share of the hypervolume of the union of all fronts.

    They are those after some evaluations, of so many `images` each, and where all searches have spent as much: after
    half and all of the network TFLOPs of the cheapest one.
    """
    every = [one for searches in found.values() for one in searches]
    reference = reference_point(every)
    union = np.vstack([one.scores for one in every])
    volume = hypervolume(union[front_indices(union)], reference)
    least = min(network_tflops(one, images)[-1] for one in every)
    rows = []
    for name, searches in found.items():
        curves = np.array([hypervolume_history(one.scores, reference) / volume for one in searches])
        spent = [network_tflops(one, images) for one in searches]
        row = {"variant": name} | {str(n): f"{np.median(curves[:, n - 1]):.3f}" for n in shown}
        for limit in (least / 2, least):
            within = [curve[each <= limit].max(initial=0.0) for curve, each in zip(curves, spent, strict=True)]
            row[f"at {limit:.2g} network TFLOPs"] = f"{np.median(within):.3f}"
        row["network TFLOPs at the end"] = f"{np.median([each[-1] for each in spent]):.2f}"
        rows.append(row | {"range at the end": f"{curves[:, -1].min():.3f}-{curves[:, -1].max():.3f}"})
    return pd.DataFrame(rows)


def network_tflops(searched: Searched, images: int) -> np.ndarray:
    """Return what the networks of a search computed until each evaluation of so many images, [N]."""
    return np.asarray(np.cumsum(searched.scores[:, 1]) * images / 1000)
