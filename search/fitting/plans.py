"""Fit samplers to plans: learn times and coefficients for a plan's own widths, and score the best as a new trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stepfront.errors import InputError
from stepfront.search.algorithm.trials import GENOME, Proposal, result_of
from stepfront.search.fitting.failures import failure_of, may_pass, needs_score
from stepfront.search.learning.chosen import SamplerToLearn
from stepfront.search.learning.distance_features import distance_features
from stepfront.search.learning.search_samplers import LostWorkerError, Stage, find_or_learn, sampler_task
from stepfront.search.problem.evaluator_parts import plan_scorer, worker_parts
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import SamplerRecord, write_sampler
from stepfront.search.study.ledger import Ledger
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation
from stepfront.trainers.inference.cost import WidthCost


@dataclass(frozen=True)
class Fit:
    """A trial, what fitting a sampler to its plan brought, and the new trial; None where its own sampler is as good.

    `new_fid` is NaN without a new trial, and where it failed.
    """

    trial: int
    fid: float
    record: SamplerRecord
    new_trial: int | None = None
    new_fid: float = math.nan


@dataclass(frozen=True)
class Fitting:
    """Fits samplers to trials of an open study, on workers.  Needs a `ray_session`."""

    problem: SearchProblem
    costs: dict[float, WidthCost]
    directory: Path
    ledger: Ledger
    stage: Stage
    check_interrupt: Callable[[], None] = lambda: None
    failures: dict[int, str] = field(default_factory=dict)
    """Why learning failed, by trial: those have no `Fit`."""
    lost: dict[int, str] = field(default_factory=dict)
    """Why fits of the last call failed that may not fail again, such as for a lost worker, by trial."""

    def fit(self, numbers: Sequence[int]) -> list[Fit]:
        """Fit a sampler to each of the trials; what an interrupted call has learnt and recorded is kept.

        A trial whose learning fails is reported and left out.
        """
        self.lost.clear()
        learnt = self._learnt(numbers)
        trials, records = [self.ledger.trials[number] for number in learnt], list(learnt.values())
        for record in records:
            write_sampler(self.directory, record)
        proposals = [
            Proposal(trial.user_attrs[GENOME], "fit", (trial.number,), record.sampler.digest)
            for trial, record in zip(trials, records, strict=True)
        ]
        self._score(
            [
                (proposal, record)
                for proposal, record in zip(proposals, records, strict=True)
                if record.improves and needs_score(self.ledger, proposal, self.stage)
            ]
        )
        for proposal in proposals:
            self._note_failure(proposal)
        fits = [Fit(t.number, float(result_of(t)["fid"]), r) for t, r in zip(trials, records, strict=True)]
        return [self._with_trial(fit, proposal) for fit, proposal in zip(fits, proposals, strict=True)]

    def _note_failure(self, proposal: Proposal) -> None:
        """Note why a fitted plan has no score, where it failed."""
        if reason := failure_of(self.ledger, proposal):
            number = proposal.parents[0]
            if may_pass(reason):
                self.lost[number] = reason
            else:
                self.stage(f"the fit of trial {number} failed and is given up: {reason}")

    def _learnt(self, numbers: Sequence[int]) -> dict[int, SamplerRecord]:
        """Return the record of each trial whose learning does not fail."""
        parts, features, tasks = worker_parts(self.problem, self.costs), distance_features(self.problem), {}
        for number in numbers:
            plan = self.problem.plan_of(self.ledger.trials[number].user_attrs[GENOME])
            tasks[number] = sampler_task(self.problem, parts, plan.widths, "solver", plan, features)
        numbers_of = {task.key: number for number, task in tasks.items()}

        def failed(task: SamplerToLearn, error: InputError) -> None:
            number = numbers_of[task.key]
            self.failures[number] = str(error)
            if isinstance(error, LostWorkerError):
                self.lost[number] = str(error)
            self.stage(f"no sampler is fitted to trial {number}: {error}")

        found = find_or_learn(self.problem, list(tasks.values()), self.stage, self.check_interrupt, failed)
        return {number: found[task.key] for number, task in tasks.items() if task.key in found}

    def _with_trial(self, fit: Fit, proposal: Proposal) -> Fit:
        found = self.ledger.fit_of(proposal) if fit.record.improves else None
        if found is None:
            return fit
        score = result_of(found).get("fid")
        return Fit(fit.trial, fit.fid, fit.record, int(found.number), math.nan if score is None else float(score))

    def _score(self, fitted: Sequence[tuple[Proposal, SamplerRecord]]) -> None:
        """Score fitted plans on the search's own noise and number of images, and record them in their order."""
        if fitted:
            self.stage("scoring the fitted plans")
        for (proposal, _), evaluation in zip(fitted, self._evaluations([r for _, r in fitted]), strict=True):
            self.ledger.add_fit(proposal, evaluation)

    def _evaluations(self, records: Sequence[SamplerRecord]) -> list[Evaluation]:
        if not records:
            return []
        evaluation = self.problem.settings.evaluation
        jobs = [(Plan(r.sampler.times, r.widths, r.sampler.solver, r.sampler), evaluation.noise_seed) for r in records]
        with plan_scorer(self.problem, self.costs, evaluation.images) as scorer:
            return scorer.score(jobs, evaluation.images, lambda done, total: self.check_interrupt())
