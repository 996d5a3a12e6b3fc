"""Score the front of a search again on held-out noise seeds, on two judges, until the claim is decided.

The best of many noisy scores is lucky.  Front, full width, other full-width samplers and the best baselines are
therefore scored again, side by side, on noise seeds that the search never used.  The quality in reports is computed
from these scores alone.  Seeds are added for plans near the claim (search/claims/noninferiority.py).
"""

from __future__ import annotations

import itertools
import logging
import math
from pathlib import Path
from typing import Any

import pandas as pd

from stepfront.errors import InputError
from stepfront.search.claims.claim import Rules, Standing, compare_plans
from stepfront.search.claims.confirmed_plans import BLURRED
from stepfront.search.claims.noninferiority import plan_looks
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.front import mark_used, read_confirmed
from stepfront.search.records.plan_rows import learnt_of
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.apply_confirmation import apply_confirmation, begin_looks, looks_taken
from stepfront.search.scoring.baselines import lacks_samplers, score_samplers
from stepfront.search.scoring.held_out_scorer import SECOND_JUDGE, HeldOutScorer, OnResult, PlanKey
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

_ONE_SCORE = [*IDENTITY, "noise_seed", "images"]


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
            if lacks_samplers(problem, directory):
                score_samplers(problem, directory, scorer.plan_scorer, lambda _, done, total: on_result(done, total))
            rules = begin_looks(directory, settings, images, looks)
            standing = _Confirmed(directory, problem, scorer).score_until_decided(rules)
        apply_confirmation(directory, settings, images, standing)
    return directory


class _Confirmed:
    """The table of confirmed scores, and the plans that belong into it."""

    def __init__(self, directory: Path, problem: SearchProblem, scorer: HeldOutScorer) -> None:
        self._directory, self._problem, self._scorer = directory, problem, scorer
        self._rows = plans_to_confirm(directory, problem)
        stored = read_confirmed(directory)
        self._own = [score.name for score in problem.settings.scores]
        columns = [*SCORES, *self._own]
        scores = (pd.DataFrame(columns=columns) if stored is None else stored).reindex(columns=columns)
        # The table has a row per kind: the full width may be on the front as well.
        scores = scores.drop_duplicates(_ONE_SCORE, keep="last", ignore_index=True)
        self._scores = scores[self._of_these_plans(scores)]
        self._new: list[dict[str, Any]] = []
        self._pause = WritePause()
        self._table = self._scores
        self._first = FIRST_SEED + problem.settings.evaluation.noise_seed
        self._looks = {seeds for images, seeds in looks_taken(read_facts(directory)) if images == scorer.images}
        self._left_out: dict[PlanKey, str] = {}
        self._kept: dict[PlanKey, int] = {}

    def score_until_decided(self, rules: Rules) -> Standing | None:
        """Score all plans on the seeds of the first look, and those near the claim on more, until there are none.

        Returns how all plans stand; None where the settings' own full width could not be scored.
        """
        plans, standing = plans_by_key(self._rows), None
        wanted = set(plans)
        for look in rules.looks:
            self._score({key: plan for key, plan in plans.items() if key in wanted}, look)
            self._write()
            standing = self._standing(rules)
            wanted = (set() if standing is None else standing.near()) - self._left_out.keys()
            if not wanted:
                break
        for key, reason in self._left_out.items():
            logging.getLogger("stepfront").warning(
                "the plan %s is left out of the confirmation: %s; confirm again to try it once more",
                _name(key),
                reason,
            )
        return standing

    def _standing(self, rules: Rules) -> Standing | None:
        """Compare the plans that have all seeds of the first look; the scores of others would flatter them."""
        done = self._done()
        complete = {key for key in plans_by_key(self._rows) if self._count(key, done) >= rules.looks[0]}
        if self._left_out and not complete:
            (plan, _), reason = next(iter(self._left_out.items()))
            raise InputError(f"no plan could be confirmed; the reason for {plan}: {reason}")
        table = self._table
        of_images = table[table["images"] == self._scorer.images]
        keys = zip(of_images["plan"], of_images["sampler"], of_images["noise_seed"], strict=True)
        valid = [key[:2] in complete and key in done for key in keys]
        return compare_plans(of_images[valid], rules, self._lacking(complete, rules.cost))

    def _lacking(self, complete: set[PlanKey], cost: str) -> str:
        """Return which full-width plan without scores could be a claim's reference, and why it has none, or "".

        Without the best of them, a claim would be easier.
        """
        # Equal sums in another order are equal to rounding only.
        limit = max((row[cost] for row in self._rows if row["kind"] == "full"), default=math.inf) * (1 + 1e-9)
        full = self._full_width()
        missing = [
            plan_key(row) for row in self._rows if plan_key(row) in full.keys() - complete and row[cost] <= limit
        ]
        return "; ".join(f"{_name(key)}: {self._left_out.get(key, 'no scores')}" for key in dict.fromkeys(missing))

    def _count(self, key: PlanKey, done: set[tuple[str, str, int]]) -> int:
        """Return on how many seeds a plan has scores before the first on which it has none."""
        return next(i for i in itertools.count() if (*key, self._first + i) not in done)

    def _score(self, plans: dict[PlanKey, Plan], seeds: int) -> None:
        done = self._done()
        jobs = [(key, plan, self._first + i) for key, plan in plans.items() for i in range(seeds)]
        jobs = [(key, plan, seed) for key, plan, seed in jobs if (*key, seed) not in done]
        if not jobs:
            return
        try:
            failed = self._scorer.score(jobs, self._keep)
        except BaseException:
            self._write()  # also when interrupted: what was scored is not scored again
            raise
        self._left_out |= failed
        for key in failed:
            count = self._count(key, done)
            self._kept[key] = max((look for look in self._looks if look <= count), default=0)

    def _keep(self, row: dict[str, Any]) -> None:
        """Keep a new score, and write all from time to time: a driver may be killed."""
        self._new.append(row)
        self._pause.write(self._write)

    def _done(self) -> set[tuple[str, str, int]]:
        """Return plans and seeds that need no new score.

        KID and others depend on the number of real images, and the second score on its judge.  Plans of full width
        alone have scores of blurred images, too, which old tables lack.
        """
        scores, scorer = self._scores, self._scorer
        same = (scores["images"] == scorer.images) & (scores["real_images"] == scorer.real_images)
        same &= (scores["second_digest"] == scorer.second_digest) & scores["second_fid"].notna()
        if self._problem.settings.confirm.extrapolate:
            same &= scores["fid_infinity"].notna()
        for name in self._own:
            same &= scores[name].notna()
        wanted = pd.MultiIndex.from_frame(scores[IDENTITY]).isin(list(self._full_width()))
        same &= scores[list(BLURRED)].notna().all(axis=1) | ~wanted
        return set(scores.loc[same, [*IDENTITY, "noise_seed"]].itertuples(index=False, name=None))

    def _full_width(self) -> dict[PlanKey, Plan]:
        full = self._problem.card.network.widths[-1]
        return {plan_key(row): row["_plan"] for row in self._rows if row["_plan"].runs_only(full)}

    def _of_these_plans(self, scores: pd.DataFrame) -> pd.Series:
        """Return which scores are of today's plans.

        Tables without the column `learnt` may have scores of the settings' solver and grid under the name of the
        sampler that was learnt for full width.
        """
        learnt = {key: learnt_of(plan) for key, plan in self._full_width().items()}
        named = zip(*(scores[name] for name in (*IDENTITY, "learnt")), strict=True)
        own = [learnt.get((plan, sampler), found) == found for plan, sampler, found in named]
        return pd.Series(own, scores.index, dtype=bool)

    def _write(self) -> None:
        """Write the table; kind, label and trial are the current ones, of plans that are still wanted.

        A plan that failed on a seed keeps the scores of looks that it has all seeds of: others would flatter it.
        """
        # A new score replaces an old one.
        parts = [part for part in (self._scores, pd.DataFrame(self._new)) if len(part)]
        if not parts:
            return
        self._scores = pd.concat(parts).drop_duplicates(_ONE_SCORE, keep="last", ignore_index=True)
        self._new.clear()
        kept = [
            images != self._scorer.images or seed < self._first + self._kept.get((plan, sampler), seed)
            for plan, sampler, seed, images in self._scores[_ONE_SCORE].itertuples(index=False, name=None)
        ]
        self._scores = self._scores[kept]
        now = pd.DataFrame([{k: v for k, v in row.items() if k != "_plan"} for row in self._rows])
        table = now.merge(self._scores, on=IDENTITY)
        if len(table):
            self._table = mark_used(table).assign(features=self._problem.features.name)
            write_table(self._table, self._directory / CONFIRM)


def _name(key: PlanKey) -> str:
    plan, sampler = key
    return f"{plan} ({sampler})" if sampler else plan
