"""Write the trials of a study to Optuna's storage, so that neither a crash nor an outage loses one.

The storage is the only truth; `trials` mirrors it.  One process writes, the driver.  A new trial is one write, with its
packed genome.  A result is two writes: the result itself, then the trial's state.  A trial that has a result but no
final state was interrupted by a crash between the two, and `load` finishes it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from stepfront.search.algorithm.trials import GENOME, LEARNT, ORIGIN, PARENTS, RESULT, GenomeSampler, Proposal
from stepfront.search.config import parse_constraint
from stepfront.search.genomes.encodings import Encoding
from stepfront.search.objectives import Objectives, excess
from stepfront.search.optuna_internals import set_storage_id, storage_id
from stepfront.search.study.optuna_storage import close_storage, sync_storage
from stepfront.search.study.outages import retry_during_outage
from stepfront.search.study.plan_parameters import trial_parameters


class TrialStore:
    """Store the trials of the study `name`, which is created where it does not exist.

    `constraints` are texts such as `gflops <= 2.0`; the excess of each is stored with a scored trial.  The study
    minimises: it holds the negative of an objective of which higher values are better, and its metric's name says so.
    With an `encoding`, each trial has parameters that describe its plan (plan_parameters.py).
    """

    def __init__(
        self,
        storage: BaseStorage,
        sampler: GenomeSampler,
        objectives: Objectives | Sequence[str],
        constraints: Sequence[str],
        name: str,
        encoding: Encoding | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directed = objectives if isinstance(objectives, Objectives) else Objectives(tuple(objectives))
        self.storage, self.objectives, self._directed = storage, directed.names, directed
        self.constraints = [parse_constraint(text) for text in constraints]
        self.study = optuna.create_study(
            storage=storage,
            sampler=sampler,
            study_name=name,
            directions=[StudyDirection.MINIMIZE] * len(self.objectives),
            load_if_exists=True,
        )
        self._study_id = storage.get_study_id_from_name(name)
        self._encoding = encoding
        self._name_metrics()
        self.trials: list[FrozenTrial] = []

    def load(self, genome_of: Callable[[FrozenTrial], str] | None = None) -> None:
        """Read all trials by their numbers, and finish those with a result whose state a crash left open.

        `genome_of` gives the genome that a trial's plan has now, where it may be another than the stored one: Optuna
        changes no attribute of a finished trial.
        """
        found = self.storage.get_all_trials(self._study_id, deepcopy=True)
        self.trials.extend(sorted(found, key=lambda trial: trial.number))
        for trial in self.trials:
            if genome_of is not None:
                trial.user_attrs[GENOME] = genome_of(trial)
            if trial.state == TrialState.RUNNING and RESULT in trial.user_attrs:
                self._finish(trial)

    def add(self, proposal: Proposal) -> FrozenTrial:
        """Store a new trial that runs."""
        attributes = {GENOME: proposal.genome, ORIGIN: proposal.origin, PARENTS: list(proposal.parents)}
        attributes |= {LEARNT: proposal.learnt} if proposal.learnt else {}
        described = {} if self._encoding is None else trial_parameters(self._encoding, proposal.genome)
        trial = create_trial(state=TrialState.RUNNING, user_attrs=attributes, **described)
        trial.datetime_start = datetime.now()
        set_storage_id(trial, retry_during_outage(self._creation(trial)))
        trial.number = len(self.trials)
        self.trials.append(trial)
        return trial

    def record(self, trial: FrozenTrial, result: Mapping[str, Any]) -> None:
        """Store the result of a running trial, then the state that follows from it: failed where it has an error."""
        self.set_attribute(trial, RESULT, dict(result))
        self._finish(trial)

    def set_attribute(self, trial: FrozenTrial, key: str, value: Any) -> None:
        """Store an attribute of a trial."""
        retry_during_outage(partial(self.storage.set_trial_user_attr, storage_id(trial), key, value))
        trial.user_attrs[key] = value

    def study_attribute(self, key: str) -> Any:
        """Return an attribute of the study; None where it has no such attribute."""
        return retry_during_outage(partial(self.storage.get_study_user_attrs, self._study_id)).get(key)

    def set_study_attribute(self, key: str, value: Any) -> None:
        """Store an attribute of the study."""
        retry_during_outage(partial(self.storage.set_study_user_attr, self._study_id, key, value))

    def sync(self) -> None:
        """Write what was stored to the disk, so that it survives a power failure."""
        retry_during_outage(partial(sync_storage, self.storage))

    def close(self) -> None:
        """Close the storage's connections."""
        close_storage(self.storage)

    def _name_metrics(self) -> None:
        """Name the study's values, for tools that show it."""
        if self.study.metric_names is None:
            names = [name if self._directed.sign(name) > 0 else f"-{name}" for name in self.objectives]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self.study.set_metric_names(names)

    def _creation(self, trial: FrozenTrial) -> Callable[[], int]:
        """Return a function that creates the trial in the storage once, however often it is called."""
        tried = False

        def create() -> int:
            nonlocal tried
            if tried:
                # The write may have succeeded although its answer was lost.
                stored = self.storage.get_all_trials(self._study_id, deepcopy=False)
                if len(stored) > len(self.trials):
                    return storage_id(stored[-1])
            tried = True
            return int(self.storage.create_new_trial(self._study_id, template_trial=trial))

        return create

    def _finish(self, trial: FrozenTrial) -> None:
        """Store the state that follows from a trial's result, after the excess of each constraint."""
        result = trial.user_attrs[RESULT]
        failed = bool(result["error"])
        if not failed:
            self._store_constraints(trial, result)
        sign = self._directed.sign
        values = None if failed else [sign(name) * float(result[name]) for name in self.objectives]
        state = TrialState.FAIL if failed else TrialState.COMPLETE
        retry_during_outage(partial(self._set_state, storage_id(trial), state, values))
        trial.state, trial.values = state, values
        trial.datetime_complete = datetime.now()

    def _store_constraints(self, trial: FrozenTrial, result: Mapping[str, Any]) -> None:
        for name, sign, bound in self.constraints:
            key, beyond = f"{name} {sign} {bound:g}", excess(result[name], sign, bound)
            if key not in trial.constraints:
                # Optuna keeps them as attributes, and a live trial, which could set one, reads itself twice for it.
                attributes = create_trial(state=TrialState.RUNNING, constraints={key: beyond}).system_attrs
                for own, value in attributes.items():
                    retry_during_outage(partial(self.storage.set_trial_system_attr, storage_id(trial), own, value))
                trial.set_constraint(key, beyond)

    def _set_state(self, trial_id: int, state: TrialState, values: list[float] | None) -> None:
        # A finished trial means that the answer of an earlier attempt was lost: there is no other writer.
        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.set_trial_state_values(trial_id, state, values)
