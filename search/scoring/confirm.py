"""Score the front of a search again on held-out noise seeds, on two judges, until the claim is decided.

The best of many noisy scores is lucky.  Front, full width, other full-width samplers and the best baselines are
therefore scored again, side by side, on noise seeds that the search never used.  The quality in reports is computed
from these scores alone.  Seeds are added for plans near the claim (search/claims/noninferiority.py).
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from stepfront.errors import InputError
from stepfront.search.claims.claim import Rules, Standing, compare_plans
from stepfront.search.claims.confirmed_plans import BLURRED
from stepfront.search.claims.noninferiority import plan_looks
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.front import mark_used, read_confirmed
from stepfront.search.records.learnt_samplers import unscored_samplers
from stepfront.search.records.plan_rows import learnt_of
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.apply_confirmation import apply_confirmation, begin_looks, looks_taken
from stepfront.search.scoring.baselines import lacks_samplers, score_samplers
from stepfront.search.scoring.held_out_scorer import SECOND_JUDGE, HeldOutScorer, OnResult, PlanKey, plan_name
from stepfront.search.scoring.plans_to_confirm import plan_key, plans_by_key, plans_to_confirm
from stepfront.search.scoring.record_judges import record_judges
from stepfront.search.scoring.second_judge import check_images, load_second_judge
from stepfront.search.scoring.write_pause import WritePause
from stepfront.search.storage.lock import directory_lock
from stepfront.tables.facts import read_facts
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import BESIDE_FID, CONFIRM
from stepfront.trainers.diffusion.plan import Plan

FIRST_SEED = 1_000_000
"""First noise seed of confirmations (the search's own is added), far from any that a search uses."""

IDENTITY = ["plan", "sampler"]
SCORES = [
    *IDENTITY,
    "learnt",
    "noise_seed",
    "images",
    "fid",
    *BESIDE_FID,
    "real_images",
    "fid_infinity",
    *SECOND_JUDGE,
    "second_digest",
]

Row: TypeAlias = dict[str, Any]
"""A plan to confirm: its kind, label, trial and costs, and the plan itself as `_plan`."""
Score: TypeAlias = dict[str, Any]
"""The scores of a plan on one noise seed: the values of SCORES, and of the user's own scores."""


def run_confirmation(
    path: Path,
    images: int | None,
    seeds: int | None,
    on_result: OnResult = lambda done, total: None,
    on_judge: OnResult = lambda done, total: None,
) -> Path:
    """Score front, full-width samplers, uniform plans and the best baselines again; rewrite front and facts.

    `images` and `seeds` default to the search's settings.  Scores that exist with as many images are reused, so a
    second call costs nothing; scores of other numbers of images stay beside them.  `on_judge` is called while the
    second judge's features are trained.  A plan that cannot be scored on each seed is left out, with a warning.  Only
    the end of a call makes a claim: an interruption leaves the one before.  Raises InputError for fewer than 2 seeds,
    for too few images, when both judges are the same, and when no plan can be scored.
    """
    directory, settings = find_search(path)
    images, seeds = images or settings.confirm.images, seeds or settings.confirm.seeds
    if seeds < 2:
        raise InputError(f"{seeds} noise seed(s) given; an interval needs at least 2 (confirm.seeds)")
    with directory_lock(directory):
        problem = load_problem_of_search(settings, directory)
        judge = load_second_judge(problem, on_judge)
        check_images(problem, judge, images)
        record_judges(problem, directory, judge.features)
        looks = plan_looks(seeds, settings.confirm.max_seeds)
        with HeldOutScorer(problem, judge, directory, images, on_result) as scorer:
            unscored = unscored_samplers(directory)
            if lacks_samplers(problem, directory):
                given = (problem, directory, scorer.plan_scorer)
                unscored |= score_samplers(*given, lambda _, done, total: on_result(done, total))
            rules = begin_looks(directory, settings, images, looks)
            standing = _Confirmation(directory, problem, scorer, unscored).score_until_decided(rules)
        apply_confirmation(directory, settings, images, standing)
    return directory


class _ConfirmedScores:
    """The confirmed scores of a search, one per plan, sampler, noise seed and number of images."""

    def __init__(
        self, directory: Path, problem: SearchProblem, scorer: HeldOutScorer, plans: Mapping[PlanKey, Plan]
    ) -> None:
        self._path, self._problem, self._scorer = directory / CONFIRM, problem, scorer
        self._own = [score.name for score in problem.settings.scores]
        self._first = FIRST_SEED + problem.settings.evaluation.noise_seed
        full = problem.card.network.widths[-1]
        self._learnt = {key: learnt_of(plan) for key, plan in plans.items() if plan.runs_only(full)}
        self._scores: dict[tuple[str, str, int, int], Score] = {}
        stored = read_confirmed(directory)
        if stored is not None:
            for score in stored.reindex(columns=[*SCORES, *self._own]).to_dict("records"):
                if self._is_of_todays_plan(score):
                    self.add(score)

    def add(self, score: Mapping[Any, Any]) -> None:
        """Add a score, in place of the one that the plan has for the same seed and number of images, if any."""
        self._scores[score["plan"], score["sampler"], score["noise_seed"], score["images"]] = dict(score)

    def count(self, key: PlanKey) -> int:
        """Return on how many seeds a plan has scores before the first on which it has none."""
        return next(count for count in itertools.count() if not self._has(key, self._first + count))

    def missing(self, key: PlanKey, seeds: int) -> list[int]:
        """Return those of the first `seeds` noise seeds on which a plan needs a score."""
        return [seed for seed in range(self._first, self._first + seeds) if not self._has(key, seed)]

    def keep(self, key: PlanKey, seeds: int) -> None:
        """Remove the scores of a plan at today's number of images, except those of its first `seeds` seeds."""
        for plan, sampler, seed, images in list(self._scores):
            if (plan, sampler, images) == (*key, self._scorer.images) and seed >= self._first + seeds:
                del self._scores[plan, sampler, seed, images]

    def of(self, rows: Sequence[Row], complete: Container[PlanKey]) -> pd.DataFrame:
        """Return the table of the rows' plans, with the scores that those in `complete` have at today's images."""
        valid = [
            score
            for (plan, sampler, seed, images), score in self._scores.items()
            if images == self._scorer.images and (plan, sampler) in complete and self._has((plan, sampler), seed)
        ]
        return self._table(rows, valid)

    def write(self, rows: Sequence[Row]) -> None:
        """Write confirm.parquet: all scores of the rows' plans; kind, label, trial and costs are those of the rows."""
        table = self._table(rows, self._scores.values())
        if len(table):
            write_table(mark_used(table), self._path)

    def _table(self, rows: Sequence[Row], scores: Iterable[Score]) -> pd.DataFrame:
        plans = pd.DataFrame([{name: value for name, value in row.items() if name != "_plan"} for row in rows])
        found = pd.DataFrame(scores, columns=[*SCORES, *self._own])
        return plans.merge(found, on=IDENTITY).assign(features=self._problem.features.name)

    def _has(self, key: PlanKey, seed: int) -> bool:
        """Return whether a plan has a score on a seed, with all that today's settings ask for.

        KID and others depend on the number of real images, and the second score on its judge.  Plans of full width
        alone need scores of blurred images, too, which old tables lack.
        """
        score = self._scores.get((*key, seed, self._scorer.images))
        if score is None or score["real_images"] != self._scorer.real_images:
            return False
        if score["second_digest"] != self._scorer.second_digest:
            return False
        wanted = ["second_fid", *self._own]
        wanted += ["fid_infinity"] if self._problem.settings.confirm.extrapolate else []
        wanted += BLURRED if key in self._learnt else []
        return all(pd.notna(score[name]) for name in wanted)

    def _is_of_todays_plan(self, score: Mapping[Any, Any]) -> bool:
        """Return whether a stored score is of the plan that has its name today.

        Tables without the column `learnt` may have scores of the settings' solver and grid under the name of the
        sampler that was learnt for full width.
        """
        found = score["learnt"]
        return bool(self._learnt.get((score["plan"], score["sampler"]), found) == found)


class _Confirmation:
    """Scores the plans of a search on held-out seeds, and more seeds of those near the claim.

    `unscored` are full-width samplers without a score of the search's kind, with the reasons: they are not confirmed,
    and each could be the best.
    """

    def __init__(
        self, directory: Path, problem: SearchProblem, scorer: HeldOutScorer, unscored: Mapping[PlanKey, str]
    ) -> None:
        self._problem, self._scorer, self._unscored = problem, scorer, unscored
        self._rows = plans_to_confirm(directory, problem)
        self._plans = plans_by_key(self._rows)
        self._scores = _ConfirmedScores(directory, problem, scorer, self._plans)
        self._looks = {seeds for images, seeds in looks_taken(read_facts(directory)) if images == scorer.images}
        self._left_out: dict[PlanKey, str] = {}
        self._pause = WritePause()

    def score_until_decided(self, rules: Rules) -> Standing | None:
        """Score all plans on the seeds of the first look, and those near the claim on more, until there are none.

        Returns how all plans stand; None where the settings' own full width could not be scored.
        """
        wanted, standing = set(self._plans), None
        for look in rules.looks:
            self._score(wanted, look)
            self._write()
            standing = self._standing(rules)
            wanted = (set() if standing is None else standing.near()) - self._left_out.keys()
            if not wanted:
                break
        for key, reason in self._left_out.items():
            logging.getLogger("stepfront").warning(
                "the plan %s is left out of the confirmation: %s; confirm again to try it once more",
                plan_name(key),
                reason,
            )
        return standing

    def _score(self, wanted: Container[PlanKey], seeds: int) -> None:
        """Score the wanted plans on those of the first `seeds` seeds on which they have no score.

        A plan that fails keeps the scores of the last look of which it has all: scores of fewer seeds flatter it.
        """
        plans = {key: plan for key, plan in self._plans.items() if key in wanted}
        jobs = [(key, plan, seed) for key, plan in plans.items() for seed in self._scores.missing(key, seeds)]
        if not jobs:
            return
        before = {key: self._scores.count(key) for key in plans}
        try:
            failed = self._scorer.score(jobs, self._add)
        except BaseException:
            self._write()  # also when interrupted: what was scored is not scored again
            raise
        self._left_out |= failed
        for key in failed:
            self._scores.keep(key, max((look for look in self._looks if look <= before[key]), default=0))

    def _add(self, score: Score) -> None:
        """Add a new score, and write all from time to time: a driver may be killed."""
        self._scores.add(score)
        self._pause.write(self._write)

    def _write(self) -> None:
        self._scores.write(self._rows)

    def _standing(self, rules: Rules) -> Standing | None:
        """Compare the plans that have all seeds of the first look; the scores of others would flatter them."""
        complete = {key for key in self._plans if self._scores.count(key) >= rules.looks[0]}
        if self._left_out and not complete:
            (plan, _), reason = next(iter(self._left_out.items()))
            raise InputError(f"no plan could be confirmed; the reason for {plan}: {reason}")
        return compare_plans(self._scores.of(self._rows, complete), rules, self._lacking(complete))

    def _lacking(self, complete: Container[PlanKey]) -> str:
        """Return which full-width plan without scores could be a claim's reference, and why it has none, or "".

        Without the best of them, a claim would be easier.
        """
        full = self._problem.card.network.widths[-1]
        possible = [row for row in self._rows if row["_plan"].runs_only(full)]
        missing = dict.fromkeys(plan_key(row) for row in possible if plan_key(row) not in complete)
        reasons = {key: self._left_out.get(key, "no scores") for key in missing} | dict(self._unscored)
        return "; ".join(f"{plan_name(key)}: {reason}" for key, reason in reasons.items())
