"""Keep the ledger of a search: ask for the next trial, record its result, and continue after the process has died.

Everything else that is known of a search, tables and MLflow included, is a view of the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from stepfront.errors import InputError
from stepfront.search.algorithm.fit_rounds import FitRounds
from stepfront.search.algorithm.trials import (
    GENOME,
    LEARNT,
    GenomeSampler,
    Proposal,
    TrialArchive,
    is_fit,
    result_of,
)
from stepfront.search.genomes.encodings import Encoding
from stepfront.search.objectives import Objectives
from stepfront.search.study.budget import Budget, Limits, SearchClock
from stepfront.search.study.compatibility import SPEC, EarlierGenomes, StudySpec, check_compatible
from stepfront.search.study.optuna_storage import ID_ATTRIBUTE, OWN_STUDY
from stepfront.search.study.progress import FrontProgress, ReferencePoint
from stepfront.search.study.trial_queue import ATTEMPT, TrialQueue, attempt_of
from stepfront.search.study.trial_store import TrialStore
from stepfront.trainers.evaluation import Evaluation

NOT_FINITE = "not finite"
"""How the reason of a failure begins where a score is not finite, which it is at every attempt."""

HOPELESS = 8
"""Failed trials, with no complete one, after which a search ends."""


@dataclass(frozen=True)
class Asked:
    """A trial that is to be evaluated."""

    number: int
    genome: str
    attempt: int


class Ledger:
    """Ask for trials, record their results, count failures and restore trials.

    `spec` holds what scores depend on; a storage of another spec is refused with InputError.  `full_costs` are the
    costs of full width by objective, `attempts` how often a trial is tried when its worker fails.  With an `encoding`,
    trials have parameters that describe their plans.  `earlier` reads trials of the spaces that the search had before.

    `progress` measures the front, `budget` the limits; `finished` counts complete and failed trials; `exhausted` is
    true when every plan of the space has been proposed.  `fit_rounds` are the pauses in which samplers are fitted, and
    `pause_at` is the number of searched trials at which no further one is proposed; None: there is no pause.
    """

    def __init__(
        self,
        storage: BaseStorage,
        sampler: GenomeSampler,
        objectives: Objectives | Sequence[str],
        constraints: Sequence[str],
        limits: Limits,
        spec: Mapping[str, Any],
        full_costs: Mapping[str, float],
        attempts: int = 3,
        name: str = OWN_STUDY,
        encoding: Encoding | None = None,
        earlier: EarlierGenomes | None = None,
    ) -> None:
        self.sampler, self.attempts = sampler, attempts
        directed = objectives if isinstance(objectives, Objectives) else Objectives(tuple(objectives))
        self.objectives = directed.names
        self._store = TrialStore(storage, sampler, directed, constraints, name, encoding)
        self._spec = check_compatible(self._store, spec, earlier is not None and earlier.may_widen)
        self._store.load(None if earlier is None else self._spec.genome_of(earlier.map_of))
        self._queue = TrialQueue(
            # A fitted plan is stored with its result; one without was interrupted, and waits to be fitted again.
            trial
            for trial in self.trials
            if trial.state == TrialState.RUNNING and not is_fit(trial)
        )
        self.archive = TrialArchive()
        initial = min(len(sampler.initial), limits.trials or len(sampler.initial))
        reference = ReferencePoint(self._store, self.archive, initial, full_costs)
        self.progress = FrontProgress(self.archive, reference, self._store)
        self._clock = SearchClock()
        self.fit_rounds = FitRounds(self._store)
        self.pause_at: int | None = None
        self.budget = Budget(limits, self.trials, self._clock, self.progress, sampler.population, self.fit_rounds)
        self.exhausted = False
        self._derive()
        self._failed_before = self.failed

    def ask(self) -> Asked | None:
        """Return the next trial to evaluate, interrupted ones first; None when there is none now."""
        trial = self._queue.next_interrupted() or self._propose()
        if trial is None:
            return None
        self._queue.begin(trial)
        return Asked(trial.number, trial.user_attrs[GENOME], attempt_of(trial))

    def tell(self, number: int, evaluation: Evaluation, worker: str) -> None:
        """Record the result of a trial, unless it has one; a score that is not finite is a failure."""
        trial = self.trials[number]
        if trial.state.is_finished():
            return
        if problem := self._problem_of(evaluation):
            self.fail(number, problem)
            return
        found = evaluation.record()
        result = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in found.items()}
        self._finish(trial, result | {"worker": worker, "elapsed": self._clock.stamp()})

    def add_fit(self, proposal: Proposal, evaluation: Evaluation) -> int:
        """Record a fitted plan and its evaluation as a trial, and return its number.

        A plan with scores keeps them.  A failed trial stays as it is, and the plan gets another one.
        """
        trial = self.fit_of(proposal)
        if trial is None or trial.state == TrialState.FAIL:
            trial = self._add(proposal)
        problem = self._problem_of(evaluation)
        if problem and not trial.state.is_finished():  # not to the queue, whose workers know genomes alone
            self._finish(trial, {"error": problem, "elapsed": self._clock.stamp()})
        self.tell(trial.number, evaluation, "")
        self.sync()
        return int(trial.number)

    def fit_of(self, proposal: Proposal) -> FrozenTrial | None:
        """Return the trial of the proposal's genome on the same fitted sampler; None where there is none.

        Of several, all but the last have failed.
        """
        wanted = (proposal.genome, proposal.learnt)
        found = (t for t in reversed(self.trials) if (t.user_attrs[GENOME], t.user_attrs.get(LEARNT)) == wanted)
        return next(found, None)

    def fail(self, number: int, reason: str) -> None:
        """Let a trial that its worker did not finish wait for another attempt; the last attempt fails it."""
        trial = self.trials[number]
        if trial.state.is_finished():
            return
        self._queue.end(trial)
        attempt = attempt_of(trial)
        if attempt < self.attempts:
            self._store.set_attribute(trial, ATTEMPT, attempt + 1)
            self._queue.put_back(trial)
            return
        error = f"{reason} (attempt {attempt} of {self.attempts})"
        self._finish(trial, {"error": error, "elapsed": self._clock.stamp()})

    def restore(self, known: Mapping[int, tuple[Proposal, Mapping[str, Any]]]) -> None:
        """Fill an empty study with finished trials, by number: the proposal and the recorded result of each.

        A missing number was being evaluated: it is proposed again and waits for another attempt.  Raises ValueError
        when the study has trials.
        """
        if self.trials:
            raise ValueError(f"the study has {len(self.trials)} trials; only an empty one can be restored")
        # No plan is proposed twice, so the genomes of later trials count as well.
        self.archive.genomes.update(proposal.genome for proposal, _ in known.values())
        for number in range(max(known, default=-1) + 1):
            if number in known:
                proposal, result = known[number]
                self._finish(self._add(proposal), result)
                continue
            again = self.sampler.propose(self.study, self.archive, number)
            assert again is not None, "the missing trial had a plan, so there is one to propose"
            self._queue.put_back(self._add(again))
        self._derive()

    def enter_space(self) -> bool:
        """Store that the search goes on in the space of now, where its trials so far are of another; return that."""
        if self._spec.left is None:
            return False
        self.progress.widen()
        self._store.set_study_attribute(SPEC, self._spec.content(len(self.trials)))
        self._spec = StudySpec(self._spec.given, self._spec.earlier(len(self.trials)))
        return True

    @property
    def earlier_spaces(self) -> tuple[dict[str, Any], ...]:
        """The spaces that the search had before: each with the number `below` which its trials are."""
        return self._spec.earlier(len(self.trials))

    def search_id(self, proposed: str) -> str:
        """Return the search's id, which is kept with the study: the first one that was ever proposed."""
        stored = self._store.study_attribute(ID_ATTRIBUTE)
        if stored is None:
            self._store.set_study_attribute(ID_ATTRIBUTE, proposed)
        return str(stored or proposed)

    def sync(self) -> None:
        """Let all results so far survive a power failure; a killed process loses none of them in any case."""
        self._store.sync()

    def close(self) -> None:
        """Close the storage's connections."""
        self._store.close()

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self._store.trials

    @property
    def complete(self) -> list[FrozenTrial]:
        """The trials with scores, in the order of their results."""
        return self.archive.complete

    @property
    def failed(self) -> int:
        """Number of failed trials."""
        return self.finished - len(self.complete)

    @property
    def hopeless(self) -> bool:
        """Whether many trials have failed since the search was started or resumed, and none ever had a score."""
        return self.failed - self._failed_before >= HOPELESS and not self.complete

    @property
    def in_flight(self) -> int:
        """Number of trials that were asked for and have no result."""
        return self._queue.in_flight

    @property
    def interrupted(self) -> int:
        """Number of trials that were interrupted and wait for another attempt."""
        return self._queue.interrupted

    @property
    def remaining(self) -> int | None:
        """Number of new trials that the budget allows before the next pause; None without either."""
        until_pause = None if self.pause_at is None else max(0, self.pause_at - self.searched)
        limits = (self.budget.remaining_trials(self.finished + self.in_flight), until_pause)
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def searched(self) -> int:
        """Number of trials that the search has proposed, in whatever state; fitted plans are not counted."""
        return sum(not is_fit(trial) for trial in self.trials)

    @property
    def budget_exhausted(self) -> bool:
        """Whether the finished trials have reached a limit of the budget."""
        return self.budget.is_exhausted(self.finished)

    @property
    def ended(self) -> bool:
        """Whether the search is finished: its budget is used up, or its space has no other plan."""
        return self.budget_exhausted or self.exhausted

    @property
    def elapsed(self) -> float:
        """Seconds that the search has run, over all its sessions."""
        return self._clock.elapsed

    @property
    def storage(self) -> BaseStorage:
        """The Optuna storage of the study."""
        return self._store.storage

    @property
    def study(self) -> Study:
        """The Optuna study."""
        return self._store.study

    def _propose(self) -> FrozenTrial | None:
        if self.budget_exhausted or self.remaining == 0 or self.hopeless:
            return None
        proposal = self.sampler.propose(self.study, self.archive, len(self.trials))
        if proposal is None:
            self.exhausted = True
            return None
        return self._add(proposal)

    def _problem_of(self, evaluation: Evaluation) -> str:
        """Return why an evaluation is a failure; empty where it has all scores."""
        if evaluation.error:
            return evaluation.error
        scores = [evaluation.value(name) for name in self.objectives]
        if all(math.isfinite(score) for score in scores):
            return ""
        return f"{NOT_FINITE}: " + ", ".join(f"{n} {score}" for n, score in zip(self.objectives, scores, strict=True))

    def _add(self, proposal: Proposal) -> FrozenTrial:
        if self._spec.left is not None:
            raise InputError(
                "this search was killed while it was extended to a larger space, which its study has not entered yet; "
                "continue it first: stepfront resume SEARCH"
            )
        trial = self._store.add(proposal)
        self.archive.genomes.add(proposal.genome)
        if not is_fit(trial):
            self.archive.begin(trial)
        return trial

    def _finish(self, trial: FrozenTrial, result: Mapping[str, Any]) -> None:
        self._store.record(trial, result)
        self._queue.end(trial)
        self.archive.end(trial)
        self.finished += 1
        if trial.state == TrialState.COMPLETE:
            self.archive.add(trial)

    def _derive(self) -> None:
        """Derive everything that is kept beside the trials from the trials alone."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        self.archive.fill(
            {trial.user_attrs[GENOME] for trial in self.trials},
            sorted(complete, key=lambda trial: (result_of(trial)["elapsed"], trial.number)),
            (trial for trial in self.trials if trial.state == TrialState.RUNNING and not is_fit(trial)),
        )
        self.progress.reset()
        self.finished = sum(trial.state.is_finished() for trial in self.trials)
        self._clock.continue_from(max((result_of(trial).get("elapsed", 0.0) for trial in self.trials), default=0.0))
