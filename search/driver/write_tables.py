"""Write the tables and facts of a search from its study."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from stepfront.checksums import changed_since_written
from stepfront.errors import InputError
from stepfront.files import write_json
from stepfront.search.algorithm.proxies import gap_score
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.driver.search_facts import search_facts
from stepfront.search.driver.step_tables import gap_table, sensitivity_table
from stepfront.search.earlier.earlier_models import what_is_taught
from stepfront.search.earlier.earlier_weights import EarlierWeights
from stepfront.search.earlier.kept_tables import keep_earlier
from stepfront.search.objectives import Objectives
from stepfront.search.problem.plan_source import make_plan_features
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.front import front_table, read_confirmed, with_confirmation
from stepfront.search.records.learnt_samplers import read_samplers
from stepfront.search.records.plan_rows import own_sampler
from stepfront.search.records.run_directory import FACTS_FILE
from stepfront.search.records.score_noise import read_score_noise
from stepfront.search.records.within_noise import mark_within_noise
from stepfront.search.scoring.proxy_agreement import correlations, proxies_table
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.views import progress_table, trials_table
from stepfront.tables.parquet import read_optional_table, read_table, write_table
from stepfront.tables.schema import ADAPTATION, BASELINES, FRONT, GAP, PROGRESS, PROXY_SCORES, SENSITIVITY, TRIALS
from stepfront.tables.search_tables import Snapshot
from stepfront.trainers.inference.cost import WidthCost


@dataclass
class TableWriter:
    """Writes the tables and facts of one search from its study."""

    problem: SearchProblem
    ledger: Ledger
    costs: dict[float, WidthCost]
    directory: Path
    command: str

    def write(self) -> Snapshot:
        """Write all tables and search.json.  Raises InputError when no trial has a score."""
        # Tables must never be ahead of the study: after a power failure the search would be refused.
        self.ledger.sync()
        trials = trials_table(self.ledger, self.problem.plan_of, read_samplers(self.directory))
        self._check_scores(trials)
        front = self._front(trials)
        progress = progress_table(self.ledger)
        proxies = self._proxies(trials)
        facts = search_facts(self.problem, self.ledger, self.costs, trials, self.command, self.directory)
        facts["proxy_tau"] = correlations(proxies)
        facts["earlier"] = self._earlier_weights.facts(trials)
        write_table(proxies.assign(features=self.problem.features.name), self.directory / PROXY_SCORES)
        self._copy_adaptation()
        self._add_uniform_baselines(trials)
        write_table(trials, self.directory / TRIALS)
        write_table(front, self.directory / FRONT)
        write_table(progress, self.directory / PROGRESS)
        write_json(self.directory / FACTS_FILE, facts)
        return Snapshot(trials, progress, front, facts)

    def _add_uniform_baselines(self, trials: pd.DataFrame) -> None:
        path = self.directory / BASELINES
        with contextlib.suppress(InputError):  # a damaged table of baselines stops no search; doctor names it
            baselines = read_optional_table(path)
            missing = missing_uniform_plans(trials, baselines)
            if len(missing) or not path.exists():
                parts = [part for part in (baselines, missing) if len(part)] or [missing]
                write_table(pd.concat(parts, ignore_index=True), path)

    def _copy_adaptation(self) -> None:
        """Copy what the supernet's second stage cost and gained, so that a report of the search alone shows it."""
        made, kept = self.problem.supernet.local / ADAPTATION, self.directory / ADAPTATION
        if made.exists() and (not kept.exists() or changed_since_written(kept)):
            with contextlib.suppress(InputError):  # a damaged table of the supernet stops no search; doctor names it
                write_table(read_table(made), kept)

    def write_steps(self, snapshot: Snapshot) -> None:
        """Write which steps matter, from the tables of a search that has ended: the model takes a while to ask."""
        problem, encoding = self.problem, self.problem.encoding
        plain = encoding.plain_levels  # one line per width: marks have rows of neither table
        widths = [encoding.widths[level] for level in plain]
        write_table(gap_table(problem.gap[:, plain], problem.times, widths), self.directory / GAP)
        sensitivity = sensitivity_table(snapshot.trials, snapshot.front, self._plan_features, encoding)
        write_table(sensitivity, self.directory / SENSITIVITY)

    @cached_property
    def _plan_features(self) -> PlanFeatures:
        return make_plan_features(self.problem)

    @cached_property
    def _earlier_weights(self) -> EarlierWeights:
        problem = self.problem
        settings = problem.settings
        kept = keep_earlier(settings, settings.search_directory)
        taught = what_is_taught(settings.initial_plans, problem.encoding, settings.screen.proxy, kept)
        return EarlierWeights(self._plan_features, problem.encoding.unpack, taught, kept)

    def _check_scores(self, trials: pd.DataFrame) -> None:
        if not (trials["state"] == "complete").any():
            reasons = trials["error"].value_counts()
            why = f"; the most frequent reason: {reasons.index[0]}" if len(reasons) else ""
            raise InputError(f"no trial of the search in {self.directory} has a score{why}")

    def _front(self, trials: pd.DataFrame) -> pd.DataFrame:
        evaluation = self.problem.settings.evaluation
        objectives = Objectives.of_settings(self.problem.settings)
        front = front_table(trials, objectives)
        others = objectives.others(objectives.minimised(front))
        front = mark_within_noise(front, read_score_noise(self.directory, evaluation), objectives.cost, others)
        confirmed = read_confirmed(self.directory)
        if confirmed is None:
            return front
        own = own_sampler(self.problem.settings)
        return with_confirmation(front, confirmed[confirmed["used"]], objectives, own)

    def _proxies(self, trials: pd.DataFrame) -> pd.DataFrame:
        encoding = self.problem.encoding
        return proxies_table(trials, gap_score(encoding, self.problem.gap), self._plan_features, encoding.unpack)


def missing_uniform_plans(trials: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """Return the uniform plans that the search has scored and its baselines lack.

    A search may add some late: when it continues, when one that failed is tried again, and with more steps.
    """
    uniform = trials[(trials["origin"] == "uniform") & (trials["state"] == "complete")]
    known = baselines.loc[baselines["method"] == "uniform", "plan"]
    return uniform[~uniform["plan"].isin(known)].assign(method="uniform", sampler="")
