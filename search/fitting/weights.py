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
from stepfront.files import write_json
from stepfront.search.algorithm.trials import GENOME, LEARNT, Proposal, result_of
from stepfront.search.fitting.failures import needs_score
from stepfront.search.problem.evaluator_parts import plan_scorer
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import (
    SCORED,
    WEIGHTS_FOLDER,
    find_weights,
    fit_name,
    read_samplers,
    write_weights,
)
from stepfront.search.records.plan_rows import fitted, learnt_of, plan_columns
from stepfront.search.study.ledger import NOT_FINITE, Ledger
from stepfront.trainers.adaptation.plan_weights import Call, check_fits, fit_weights
from stepfront.trainers.devices import ThreadWatch, device_of_driver
from stepfront.trainers.diffusion.conditioning import calls_per_step
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.plan_run import PlanRun
from stepfront.trainers.evaluation import Evaluation
from stepfront.trainers.inference.cost import WidthCost
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import supernet_from_weights
from stepfront.trainers.noise_schedule import noise_schedule


@dataclass(frozen=True, kw_only=True)
class FitOutcome:
    """What fitted weights brought and took; losses are of the plan's calls, on held-out images."""

    fid: float
    """FID before the fit."""
    new_fid: float
    """FID on the fitted weights; NaN where they could not be scored."""
    digest: str
    loss_before: float
    loss_after: float
    tflops: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class WeightFit(FitOutcome):
    """A trial, and the new one on weights that were fitted to its plan."""

    trial: int
    new_trial: int


@dataclass(frozen=True, kw_only=True)
class SamplerFit(FitOutcome):
    """A full-width sampler that weights were fitted to."""

    plan: str
    sampler: str
    """Empty for the search's own."""


@dataclass(frozen=True)
class WeightFitting:
    """Fits weights to plans of a search, in this process, and scores them on a worker.

    It trains on the device of `training`.  Needs a `ray_session`.
    """

    problem: SearchProblem
    costs: dict[float, WidthCost]
    directory: Path
    stage: Callable[[str], None]
    progress: Callable[[int, int], None] = lambda done, total: None
    """Called with the training steps that are done, and all."""

    def fit(self, ledger: Ledger, number: int, steps: int) -> WeightFit:
        """Fit the weights to the plan of a trial of an open study by `steps` training steps.

        An interrupted training is repeated by the next call, which ends with the same weights; weights that are
        there are not trained again.  The plan keeps its sampler, also one that was fitted to it.  Raises InputError for
        a trial on fitted weights.
        """
        trial = ledger.trials[number]
        own = self.problem.plan_of(trial.user_attrs[GENOME])
        plan = fitted(own, trial.user_attrs.get(LEARNT, ""), read_samplers(self.directory))
        if plan.weights:
            raise InputError(f"trial {number} runs on fitted weights; give another --point")
        digest, facts = self._trained(plan, {"parent": number}, steps)
        plan = replace(plan, weights=digest)
        proposal = Proposal(
            trial.user_attrs[GENOME], "fit", (number,), digest if plan.learnt == own.learnt else learnt_of(plan)
        )
        found = ledger.fit_of(proposal)
        if found is None or needs_score(ledger, proposal, self.stage):
            new = ledger.add_fit(proposal, self._score(plan))
        else:
            new = int(found.number)
        scores = [result_of(ledger.trials[one]).get("fid") for one in (number, new)]
        old_fid, new_fid = (math.nan if score is None else float(score) for score in scores)
        return WeightFit(
            trial=number, new_trial=new, fid=old_fid, new_fid=new_fid, digest=digest, **_losses_and_costs(facts)
        )

    def fit_sampler(self, plan: Plan, sampler: str, fid: float, steps: int) -> SamplerFit:
        """Fit the weights to a full-width sampler, a baseline, as `fit` does to a trial.

        The record of the weights keeps its row, which confirmations read.  `fid` is its score without the fit.  Raises
        InputError where it can't be scored: its weights stay, and until they have a score nothing is claimed, unless
        the score is not finite.
        """
        named = {"plan": plan.runs, "sampler": sampler, "times": list(plan.times), "solver": plan.solver}
        digest, facts = self._trained(plan, named, steps)
        if SCORED not in facts:
            fitted = replace(plan, weights=digest)
            evaluation = self._score(fitted)
            if evaluation.error and NOT_FINITE not in evaluation.error:
                raise InputError(
                    f"{plan.runs} on fitted weights could not be scored: {evaluation.error}; nothing is claimed until "
                    "it is: repeat this command, which does not train again"
                )
            scores: dict[str, Any] = {name: getattr(evaluation, name) for name in ("fid", "gflops", "latency_ms")}
            if evaluation.error:
                scores = {"fid": None, "error": evaluation.error}
            facts[SCORED] = plan_columns(fitted) | {"sampler": fit_name(sampler, digest)} | scores
            write_json(self.directory / WEIGHTS_FOLDER / f"{digest}.json", facts)
        if facts[SCORED]["fid"] is None:
            raise InputError(f"{plan.runs} on fitted weights has no score: {facts[SCORED]['error']}")
        new_fid = float(facts[SCORED]["fid"])
        return SamplerFit(
            plan=plan.runs, sampler=sampler, fid=fid, new_fid=new_fid, digest=digest, **_losses_and_costs(facts)
        )

    def _trained(self, plan: Plan, of: dict[str, Any], steps: int) -> tuple[str, dict[str, Any]]:
        """Return the digest of a plan's weights, and their record; they are trained unless the search has them.

        `of` says which plan it is.
        """
        supernet = self._supernet()
        check_fits(supernet)
        deciding = of | self._deciding(steps)
        return find_weights(self.directory, deciding) or self._train(supernet, plan, deciding)

    def _deciding(self, steps: int) -> dict[str, Any]:
        """Return what decides the weights, beside the plan."""
        training, adapt = self.problem.settings.training, self.problem.settings.adapt
        facts: dict[str, Any] = {"steps": steps, "supernet": self.problem.card.digest}
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
        device = device_of_driver(settings.training.device, settings.training.workers)
        threads = ThreadWatch(device, self.stage)
        threads.look()
        self.stage(f"fitting the weights to {plan.runs}: {steps:,} steps")
        begin, calls = time.monotonic(), _calls(plan, self.problem)

        def progress(done: int, total: int) -> None:
            threads.look()
            self.progress(done, total)

        given = (supernet, settings, settings.adapt, self.problem.data, calls, steps, progress)
        made = fit_weights(*given, device=device)
        facts: dict[str, Any] = deciding | {
            "plan": plan.runs,
            "loss_before": made.loss_before,
            "loss_after": made.loss_after,
            "tflops": self._tflops(calls, made.images),
            "seconds": time.monotonic() - begin,
        }
        weights = {name: value.detach().contiguous() for name, value in made.supernet.widest.state_dict().items()}
        return write_weights(self.directory, weights, facts), facts

    def _supernet(self) -> Supernet:
        weights = {name: torch.from_numpy(array.copy()) for name, array in self.problem.weights.items()}
        return supernet_from_weights(self.problem.card, weights)

    def _tflops(self, calls: dict[float, tuple[Call, ...]], images: int) -> float:
        """Return the network FLOPs of training on so many images: three passes, and one of the teacher."""
        total = sum(map(len, calls.values()))
        macs = sum(len(each) / total * 3 * self.costs[width].macs for width, each in calls.items())
        return 2e-12 * images * (macs + self.costs[1.0].macs)

    def _score(self, plan: Plan) -> Evaluation:
        """Score the plan on the search's own noise and number of images."""
        self.stage("scoring the plan on the fitted weights")
        evaluation = self.problem.settings.evaluation
        with plan_scorer(self.problem, self.costs, evaluation.images) as scorer:
            (scored,) = scorer.score([(plan, evaluation.noise_seed)], evaluation.images)
        return scored


def _losses_and_costs(facts: dict[str, Any]) -> dict[str, float]:
    return {name: facts[name] for name in ("loss_before", "loss_after", "tflops", "seconds")}


def _calls(plan: Plan, problem: SearchProblem) -> dict[float, tuple[Call, ...]]:
    """Return the calls of a plan by width."""
    run = PlanRun(plan, noise_schedule(problem.card.diffusion))
    found: dict[float, tuple[Call, ...]] = {}
    for position, variant, told in zip(run.taken, run.variants, run.network_times, strict=True):
        found[variant.width] = (*found.get(variant.width, ()), Call(plan.times[position], told))
    return found
