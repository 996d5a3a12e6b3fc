"""The durable study: asks for plans, is told their scores, and loses nothing when the process dies in between.

The Optuna storage holds each trial with its packed genome: one write when it is asked, two when it is told (the result,
then the state).  Everything else, tables and MLflow included, is a view of it.  There is one writer, the driver.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from stepfront.errors import InputError
from stepfront.search.algorithm.trials import GENOME, RESULT, GenomeSampler, Proposal, TrialArchive, result_of
from stepfront.search.config import parse_constraint
from stepfront.search.pareto import GrowingFront
from stepfront.search.study.budget import Limits
from stepfront.search.study.optuna_storage import OWN_STUDY, close_storage, patiently
from stepfront.trainers.evaluation import Evaluation

HOPELESS = 8
"""Failed trials, with no other, after which a search ends."""


@dataclass(frozen=True)
class Asked:
    """A trial that is to be evaluated."""

    number: int
    genome: str
    attempt: int


class Ledger:
    """All trials of one search.  `spec` says what its scores depend on; another search's storage is refused.

    `finished` counts the failed trials too.
    """

    def __init__(
        self,
        storage: BaseStorage,
        sampler: GenomeSampler,
        objectives: Sequence[str],
        constraints: Sequence[str],
        limits: Limits,
        spec: Mapping[str, Any],
        full_costs: Mapping[str, float],
        attempts: int = 3,
        name: str = OWN_STUDY,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage, self.sampler, self.limits, self.attempts = storage, sampler, limits, attempts
        self.objectives = tuple(objectives)
        self.constraints = [parse_constraint(text) for text in constraints]
        self.full_costs = full_costs
        self.study = optuna.create_study(
            storage=storage,
            sampler=sampler,
            study_name=name,
            directions=[StudyDirection.MINIMIZE] * len(objectives),
            load_if_exists=True,
        )
        self._study_id = storage.get_study_id_from_name(name)
        self._check_spec(dict(spec))
        self.trials: list[FrozenTrial] = sorted(
            storage.get_all_trials(self._study_id, deepcopy=True), key=lambda trial: trial.number
        )
        self._queue = [trial for trial in self.trials if trial.state == TrialState.RUNNING]
        self._live: set[int] = set()
        self.archive = TrialArchive()
        self.finished = 0
        self._scores: np.ndarray | None = None
        self.exhausted = False
        self._identity: str | None = None
        self._reference: list[float] | None = None
        self._grown: GrowingFront | None = None
        self._finish_told()
        self._take_stock()
        self._failed_before = self.failed
        self._begin = time.monotonic()

    def _take_stock(self) -> None:
        """What is kept beside the trials, from them alone."""
        self.archive = TrialArchive()
        self.archive.genomes.update(trial.user_attrs[GENOME] for trial in self.trials)
        done = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        for trial in sorted(done, key=lambda trial: (trial.user_attrs[RESULT]["elapsed"], trial.number)):
            self.archive.add(trial)
        self.finished = sum(trial.state.is_finished() for trial in self.trials)
        self._before = self._last = max((self.result(t).get("elapsed", 0.0) for t in self.trials), default=0.0)
        self._scores = self._grown = None

    # --- asking and telling ------------------------------------------------------------------------------------------

    def ask(self) -> Asked | None:
        """The next trial to evaluate, first those that were cut off; None when there is none now."""
        if self._queue:
            trial = self._queue.pop(0)
        elif self.spent() or self._all_asked() or self.hopeless:
            return None
        else:
            proposal = self.sampler.propose(self.study, self.archive, len(self.trials))
            if proposal is None:
                self.exhausted = True
                return None
            trial = self._record(proposal)
        self._live.add(trial.number)
        return Asked(trial.number, trial.user_attrs[GENOME], int(trial.user_attrs.get("attempt", 1)))

    def tell(self, number: int, evaluation: Evaluation, worker: str) -> None:
        """The result of a trial; one that is told twice keeps the first.  A score that is not finite is a failure."""
        trial = self.trials[number]
        if trial.state.is_finished():
            return
        scores = [getattr(evaluation, name) for name in self.objectives]
        if evaluation.error or not all(math.isfinite(score) for score in scores):
            said = ", ".join(f"{name} {score}" for name, score in zip(self.objectives, scores, strict=True))
            self.fail(number, evaluation.error or f"not finite: {said}")
            return
        result = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in asdict(evaluation).items()}
        result |= {"worker": worker, "elapsed": self._now()}
        self._write_attribute(trial, RESULT, result)
        self._close(trial)
        self._count(trial)

    def fail(self, number: int, reason: str) -> None:
        """A trial that its worker did not finish: it is asked again, of another one, and fails after some attempts."""
        trial = self.trials[number]
        if trial.state.is_finished():
            return
        self._live.discard(number)
        attempt = int(trial.user_attrs.get("attempt", 1))
        if attempt >= self.attempts:
            result = {"error": f"{reason} (attempt {attempt} of {self.attempts})", "elapsed": self._now()}
            self._write_attribute(trial, RESULT, result)
            self._close(trial)
            self._count(trial)
            return
        self._write_attribute(trial, "attempt", attempt + 1)
        self._queue.append(trial)

    def restore(self, known: Mapping[int, tuple[Proposal, Mapping[str, Any]]]) -> None:
        """Fills an empty study with finished trials, by their numbers: what was proposed, and the result that was told.

        A number that is missing was being evaluated: it is proposed anew and waits to be asked.
        """
        if self.trials:
            raise ValueError(f"the study holds {len(self.trials)} trials already")
        # No plan is proposed twice: what comes later is known, too.
        self.archive.genomes.update(proposal.genome for proposal, _ in known.values())
        for number in range(max(known, default=-1) + 1):
            told = known.get(number)
            proposal = told[0] if told else self.sampler.propose(self.study, self.archive, number)
            assert proposal is not None, "the trial that was lost had a plan of its own"
            trial = self._record(proposal)
            if told is None:
                self._queue.append(trial)
            else:
                self._write_attribute(trial, RESULT, dict(told[1]))
                self._close(trial)
                self._count(trial)
        self._take_stock()

    def identity(self, proposed: str) -> str:
        """The search's id, kept with the study: the first that was proposed."""
        if self._identity is None:
            stored = patiently(partial(self.storage.get_study_user_attrs, self._study_id)).get("search_id")
            if stored is None:
                patiently(partial(self.storage.set_study_user_attr, self._study_id, "search_id", proposed))
            self._identity = str(stored or proposed)
        return self._identity

    def close(self) -> None:
        """Lets go of the storage's files."""
        close_storage(self.storage)

    def _record(self, proposal: Proposal) -> FrozenTrial:
        attributes = {GENOME: proposal.genome, "origin": proposal.origin, "parents": list(proposal.parents)}
        template = create_trial(state=TrialState.RUNNING, user_attrs=attributes)
        template.datetime_start = datetime.now()
        template._trial_id = patiently(self._creation(template))
        template.number = len(self.trials)
        self.trials.append(template)
        self.archive.genomes.add(proposal.genome)
        return template

    def _creation(self, template: FrozenTrial) -> Callable[[], int]:
        tried = False

        def create() -> int:
            nonlocal tried
            if tried:
                # The write may have come through although its answer did not.
                there = self.storage.get_all_trials(self._study_id, deepcopy=False)
                if len(there) > len(self.trials):
                    return int(there[-1]._trial_id)
            tried = True
            return int(self.storage.create_new_trial(self._study_id, template_trial=template))

        return create

    def _now(self) -> float:
        """The search's clock in ms, later than at any result before: it orders them, at a resume too."""
        self._last = max(round(self.elapsed, 3), round(self._last + 1e-3, 3))
        return self._last

    def _count(self, trial: FrozenTrial) -> None:
        self.finished += 1
        if trial.state == TrialState.COMPLETE:
            self.archive.add(trial)
            self._scores = None

    def _close(self, trial: FrozenTrial) -> None:
        """Gives a trial the state that its result says; what was written last decides, so a crash loses nothing."""
        result = trial.user_attrs[RESULT]
        failed = bool(result["error"])
        if not failed:
            for name, sign, bound in self.constraints:
                key, excess = f"{name} {sign} {bound:g}", result[name] - bound if sign == "<=" else bound - result[name]
                if key not in trial.constraints:
                    live = optuna.trial.Trial(self.study, trial._trial_id)
                    patiently(partial(live.set_constraint, key, excess))
                    trial.set_constraint(key, excess)
        values = None if failed else [float(result[name]) for name in self.objectives]
        state = TrialState.FAIL if failed else TrialState.COMPLETE
        patiently(partial(self._set_state, trial._trial_id, state, values))
        trial.state, trial.values = state, values
        trial.datetime_complete = datetime.now()
        self._live.discard(trial.number)

    def _set_state(self, trial_id: int, state: TrialState, values: list[float] | None) -> None:
        # Done already by a write whose answer was lost: there is one writer, so it was this one.
        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.set_trial_state_values(trial_id, state, values)

    def _finish_told(self) -> None:
        # A driver that died between the two writes of a result left it complete in all but name.
        for trial in [t for t in self._queue if RESULT in t.user_attrs]:
            self._queue.remove(trial)
            self._close(trial)

    def _write_attribute(self, trial: FrozenTrial, key: str, value: Any) -> None:
        patiently(partial(self.storage.set_trial_user_attr, trial._trial_id, key, value))
        trial.user_attrs[key] = value

    # --- what is known -----------------------------------------------------------------------------------------------

    @staticmethod
    def result(trial: FrozenTrial) -> dict[str, Any]:
        """What was told of a trial; empty while it runs."""
        return result_of(trial)

    @property
    def complete(self) -> list[FrozenTrial]:
        """The trials with scores, in the order in which they were told."""
        return self.archive.complete

    @property
    def failed(self) -> int:
        return self.finished - len(self.complete)

    @property
    def hopeless(self) -> bool:
        """Whether many trials have failed since the search was taken up and none ever had a score."""
        return self.failed - self._failed_before >= HOPELESS and not self.complete

    @property
    def elapsed(self) -> float:
        """Seconds that the search has run, over all its sessions."""
        return self._before + time.monotonic() - self._begin

    @property
    def in_flight(self) -> int:
        """Trials that were asked and not yet told."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Trials that were cut off and wait to be asked again."""
        return len(self._queue)

    @property
    def left(self) -> int | None:
        """Trials that the budget still leaves to be asked; None without such a limit."""
        return None if self.limits.trials is None else max(0, self.limits.trials - self.finished - len(self._live))

    def scores(self, trials: Sequence[FrozenTrial] | None = None) -> np.ndarray:
        """[N, objectives] of the given trials, or of all complete ones."""
        if trials is None and self._scores is not None:
            return self._scores
        if trials is not None:
            return np.array([trial.values for trial in trials], dtype=np.float64).reshape(-1, len(self.objectives))
        self._scores = self.archive.scores.reshape(-1, len(self.objectives))
        self._scores.flags.writeable = False  # it is kept until the next result
        return self._scores

    def counted_scores(self) -> np.ndarray:
        """[N, objectives] of all complete trials, NaN where a constraint is broken: such a trial adds no volume."""
        if not self.constraints:
            return self.scores()
        scores = self.scores().copy()
        scores[self.archive.violations > 0] = np.nan
        return scores

    def reference_point(self) -> list[float] | None:
        """The hypervolume's reference: 1.1 x the worst FID of the first trials, 1.05 x full cost.

        Fixed and stored once the first four (the uniform widths, by default) are in, whichever came back first.
        """
        if self._reference is not None:
            return self._reference
        stored = patiently(partial(self.storage.get_study_user_attrs, self._study_id)).get("reference_point")
        if stored is None:
            first = self.trials[: max(1, min(len(self.sampler.initial), 4))]
            scored = [trial for trial in first if trial.state == TrialState.COMPLETE] or self.complete[:1]
            if not first or not scored or not all(trial.state.is_finished() for trial in first):
                return None
            worst = 1.1 * max(self.result(trial)["fid"] for trial in scored)
            stored = [worst if name == "fid" else 1.05 * self.full_costs[name] for name in self.objectives]
            patiently(partial(self.storage.set_study_user_attr, self._study_id, "reference_point", stored))
        self._reference = [float(value) for value in stored]
        return self._reference

    def hypervolumes(self) -> np.ndarray:
        """The hypervolume after each complete trial, [N]."""
        grown = self._growth()
        return np.zeros(len(self.complete)) if grown is None else np.array(grown.volumes)

    def front_scores(self) -> np.ndarray:
        """[points, objectives] of the front so far, constraints kept; empty before there is a reference point."""
        grown = self._growth()
        return np.zeros((0, len(self.objectives))) if grown is None else grown.scores

    def _growth(self) -> GrowingFront | None:
        """The front as it grew, up to the last result.  Results only ever join at the end."""
        if (reference := self.reference_point()) is None:
            return None
        self._grown = self._grown or GrowingFront(reference)
        if len(self._grown.sizes) < len(self.complete):
            self._grown.add(self.counted_scores()[len(self._grown.sizes) :])
        return self._grown

    # --- limits ------------------------------------------------------------------------------------------------------

    def spent(self) -> bool:
        """Whether a limit is reached by what is finished."""
        limits = self.limits
        if limits.trials is not None and self.finished >= limits.trials:
            return True
        if limits.seconds is not None and self.elapsed >= limits.seconds:
            return True
        if limits.tflops is not None and self.network_tflops() >= limits.tflops:
            return True
        return limits.patience is not None and self._stalled(limits.patience)

    def network_tflops(self) -> float:
        """FLOPs of all evaluations so far, in 1e12."""
        results = (self.result(trial) for trial in self.trials if trial.state == TrialState.COMPLETE)
        return sum(r["gflops"] * r["images"] for r in results) / 1000

    def _all_asked(self) -> bool:
        return self.left == 0

    def _stalled(self, patience: int) -> bool:
        window = patience * self.sampler.population
        done = len(self.complete)
        if done <= window or self.reference_point() is None:
            return False
        history = self.hypervolumes()
        return bool(history[-1] <= history[-1 - window])

    def _check_spec(self, spec: dict[str, Any]) -> None:
        spec = json.loads(json.dumps(spec))
        stored = self.storage.get_study_user_attrs(self._study_id).get("spec")
        if stored is None:
            self.storage.set_study_user_attr(self._study_id, "spec", spec)
            return
        for key in sorted(spec.keys() | stored.keys()):
            if spec.get(key) != stored.get(key):
                raise InputError(
                    f"this search was begun with {key} {stored.get(key)!r}, not {spec.get(key)!r}; its scores would "
                    "not compare.  Search under another name, or start over with --fresh"
                )
