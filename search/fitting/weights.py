"""Fit the weights of a supernet to plans of a search: train them at a plan's own times, as a new trial."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stepfront.errors import InputError
from stepfront.search.algorithm.trials import GENOME, Proposal, is_fit, result_of
from stepfront.search.execution.plan_scorer import PlanScorer
from stepfront.search.execution.worker import LoadEvaluator
from stepfront.search.problem.costs import evaluation_limit
from stepfront.search.problem.evaluator_parts import worker_parts
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import find_weights, write_weights
from stepfront.search.study.ledger import Ledger
from stepfront.trainers.adaptation.plan_weights import check_fits, fit_weights
from stepfront.trainers.devices import choose_threads
from stepfront.trainers.diffusion.conditioning import calls_per_step
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.plan_run import PlanRun
from stepfront.trainers.inference.cost import WidthCost
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import supernet_from_weights
from stepfront.trainers.noise_schedule import noise_schedule


@dataclass(frozen=True)
class WeightFit:
    """A trial, the new one on weights that were fitted to its plan, and what that brought and took.

    `new_fid` is NaN where the new trial failed.  Losses are of the plan's calls, on held-out images.
    """

    trial: int
    fid: float
    new_trial: int
    new_fid: float
    digest: str
    loss_before: float
    loss_after: float
    tflops: float
    seconds: float


@dataclass(frozen=True)
class WeightFitting:
    """Fits weights to trials of an open study, in this process, and scores them on a worker.  Needs a `ray_session`."""

    problem: SearchProblem
    costs: dict[float, WidthCost]
    directory: Path
    ledger: Ledger
    stage: Callable[[str], None]
    progress: Callable[[int, int], None] = lambda done, total: None
    """Called with the training steps that are done, and all."""

    def fit(self, number: int, steps: int) -> WeightFit:
        """Fit the weights to the plan of a trial by `steps` training steps.

        An interrupted training is repeated by the next call, which ends with the same weights; weights that are
        there are not trained again.  Raises InputError for a trial that is itself a fit, or whose plan runs on a
        learnt sampler.
        """
        supernet, trial = self._supernet(), self.ledger.trials[number]
        check_fits(supernet)
        plan = self.problem.plan_of(trial.user_attrs[GENOME])
        if is_fit(trial) or plan.learnt is not None:
            raise InputError(f"trial {number} runs on a learnt sampler or fitted weights; give another --point")
        deciding = self._deciding(number, steps)
        digest, facts = find_weights(self.directory, deciding) or self._train(supernet, plan, deciding)
        new = self._score(Proposal(trial.user_attrs[GENOME], "fit", (number,), digest), replace(plan, weights=digest))
        scores = [result_of(self.ledger.trials[one]).get("fid") for one in (number, new)]
        old_fid, new_fid = (math.nan if score is None else float(score) for score in scores)
        costs = (facts[name] for name in ("loss_before", "loss_after", "tflops", "seconds"))
        return WeightFit(number, old_fid, new, new_fid, digest, *costs)

    def _deciding(self, number: int, steps: int) -> dict[str, Any]:
        """Return what decides the weights."""
        training, adapt = self.problem.settings.training, self.problem.settings.adapt
        facts = {"parent": number, "steps": steps, "supernet": self.problem.card.digest}
        if self.problem.card.network.classes is not None:
            facts["without_labels"] = self._without_labels
        return facts | {"lr": adapt.lr, "warmup": adapt.warmup, "batch": training.batch, "seed": training.seed}

    @property
    def _without_labels(self) -> float:
        """The share of the plan's calls that have no label: with guidance, one of the two calls of each step."""
        return 0.5 if calls_per_step(self.problem.settings.sampler.guidance) == 2 else 0.0

    def _train(self, supernet: Supernet, plan: Plan, deciding: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Train the weights and write them; return their digest, and what decided them and what that took."""
        steps, settings = int(deciding["steps"]), self.problem.settings
        drop = {"drop_labels": self._without_labels}
        settings = settings.model_copy(update={"training": settings.training.model_copy(update=drop)})
        if line := choose_threads(torch.device("cpu")):
            self.stage(line)
        self.stage(f"fitting the weights to {plan.runs}: {steps:,} steps")
        begin, calls = time.monotonic(), _calls(plan, self.problem)
        fitted = fit_weights(supernet, settings, settings.adapt, self.problem.data, calls, steps, self.progress)
        facts: dict[str, Any] = deciding | {
            "plan": plan.runs,
            "loss_before": fitted.loss_before,
            "loss_after": fitted.loss_after,
            "tflops": self._tflops(calls, fitted.images),
            "seconds": time.monotonic() - begin,
        }
        weights = {name: value.detach().contiguous() for name, value in fitted.supernet.widest.state_dict().items()}
        return write_weights(self.directory, weights, facts), facts

    def _supernet(self) -> Supernet:
        weights = {name: torch.from_numpy(array.copy()) for name, array in self.problem.weights.items()}
        return supernet_from_weights(self.problem.card, weights)

    def _tflops(self, calls: dict[float, tuple[float, ...]], images: int) -> float:
        """Return the network FLOPs of training on so many images: three passes, and one of the teacher."""
        total = sum(map(len, calls.values()))
        macs = sum(len(times) / total * 3 * self.costs[width].macs for width, times in calls.items())
        return 2e-12 * images * (macs + self.costs[1.0].macs)

    def _score(self, proposal: Proposal, plan: Plan) -> int:
        """Score the plan on the search's own noise and number of images; return the number of its trial."""
        found = self.ledger.fit_of(proposal)
        if found is not None and found.state.is_finished():
            return int(found.number)
        self.stage("scoring the plan on the fitted weights")
        settings = self.problem.settings
        images, seed = settings.evaluation.images, settings.evaluation.noise_seed
        limit = evaluation_limit(settings, self.costs, images)
        with PlanScorer(LoadEvaluator(worker_parts(self.problem, self.costs)), settings.workers, limit) as scorer:
            (evaluation,) = scorer.score([(plan, seed)], images, lambda done, total: None)
        return self.ledger.add_fit(proposal, evaluation)


def _calls(plan: Plan, problem: SearchProblem) -> dict[float, tuple[float, ...]]:
    """Return the times at which a plan runs each width."""
    run = PlanRun(plan, noise_schedule(problem.card.diffusion))
    found: dict[float, tuple[float, ...]] = {}
    for variant, at in zip(run.variants, run.network_times, strict=True):
        found[variant.width] = (*found.get(variant.width, ()), at)
    return found
