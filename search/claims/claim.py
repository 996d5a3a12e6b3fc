"""Make the claim of a search: what its cheapest plan of equal quality saves.

Equal quality is non-inferiority on every judge: the plan is worse than the reference by less than the margin.  The
reference is the best confirmed plan at full width, whatever it costs: of any solver, grid and number of steps, learnt,
fitted to a point of the front, or with weights fitted to it.  What helps the front helps full width, too.  Each
judge has its own reference: what is best on one may be poor on the other, and a plan as poor would pass.

Every point of the front that is tested is one more chance of a false claim.  So points are tested in a fixed sequence,
from the dearest to the cheapest, and the first that fails ends the test (Maurer, Hothorn & Lehmacher 1995; Westfall &
Krishen 2001).  A false claim needs the first point of the sequence that is truly worse to pass.  Its own level
therefore bounds the error over all points, whatever their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd

from stepfront.search.claims.confirmed_plans import ConfirmedPlan, judges_of, read_plans
from stepfront.search.claims.noninferiority import ERROR, Difference, level_of_each, paired_difference

ENOUGH_JUDGES = 2
SEQUENCE = "fixed sequence, from the dearest to the cheapest"
"""How a claim corrects for the number of points, in words."""


@dataclass(frozen=True)
class Rules:
    """The settings of a claim: the margin, the numbers of seeds at which it may be tested, and the cost that counts."""

    margin: float
    """Share of the reference's score."""
    looks: tuple[int, ...]
    cost: str = "gflops"
    other_looks: int = 0
    """Looks of other confirmations of the search, at other numbers of seeds or images."""

    @property
    def all_looks(self) -> int:
        """Return how many looks there are to correct for."""
        return len(self.looks) + self.other_looks

    @property
    def level(self) -> float:
        """Return the level of each interval."""
        return level_of_each(self.all_looks)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A plan beside its references, one per judge: a difference on each, over `seeds` shared noise seeds."""

    plan: ConfirmedPlan
    references: tuple[ConfirmedPlan, ...]
    differences: tuple[Difference, ...]
    seeds: int

    def holds(self, margin: float) -> bool:
        """Return whether the plan is not worse by the margin on at least two judges, which are all of them."""
        return len(self.differences) >= ENOUGH_JUDGES and all(d.not_worse(margin) for d in self.differences)

    def is_near(self, margin: float) -> bool:
        """Return whether only the width of an interval keeps the plan from being shown not to be worse."""
        return not self.holds(margin) and all(d.may_hold(margin) for d in self.differences)


@dataclass(frozen=True, eq=False)
class Standing:
    """All confirmed plans beside the references, each group cheapest first.

    `references` are the best full-width samplers, one per judge; they may be one and the same.  `points` are the front
    points cheaper than `plain`, without those that no claim needs: each scored better in the search than all cheaper
    ones.
    """

    rules: Rules
    judges: list[str]
    plain: ConfirmedPlan
    references: tuple[ConfirmedPlan, ...]
    points: list[Comparison]
    samplers: list[Comparison]
    blurred: Comparison | None = None
    """The references' images after a blur beside themselves; None where they were not scored."""
    lacking: str = ""
    """Full-width plans that could be a reference and have no scores, with the reasons."""

    @property
    def sees_blur(self) -> bool:
        """Return whether the judges see a blur of the reference's images; True where nothing is known of it.

        A test that lets the blurred copy pass as equal shows nothing of any plan: it lacks assay sensitivity (ICH E10).
        """
        return self.blurred is None or not self.blurred.holds(self.rules.margin)

    @property
    def can_show(self) -> bool:
        """Return whether a test can show anything: no possible reference is missing, and the judges see a blur."""
        return self.sees_blur and not self.lacking

    def claimed(self) -> Comparison | None:
        """Return the cheapest point before the first that fails, from the dearest down; None where the dearest fails.

        Quality falls with the cost, so the sequence loses hardly any power (tests/search/claims/test_sequence.py).
        """
        return next(reversed(self._passing()), None)

    def tested(self) -> list[Comparison]:
        """Return the points that were tested, dearest first; the last is the first that fails, where one does.

        None is tested where the test could not show anything.
        """
        return self.points[::-1][: len(self._passing()) + 1] if self.can_show else []

    def _passing(self) -> list[Comparison]:
        if not self.can_show:
            return []
        return list(takewhile(lambda each: each.holds(self.rules.margin), reversed(self.points)))

    def cheapest_sampler(self) -> Comparison | None:
        """Return the cheapest full-width sampler that passes the test.

        Each is tested by itself: one that passes falsely makes the saving of a claim look smaller.
        """
        return next((each for each in self.samplers if each.holds(self.rules.margin)), None)

    def near(self) -> set[tuple[str, str]]:
        """Return the plans that more seeds may decide, with the reference; none where everything is decided.

        Of the front points, these are the near ones from the first that fails down to the first that no seed can help.
        Of the full-width samplers, they are the near ones that cost less than the cheapest that passes: each would make
        a saving smaller.  Where none passes, they cost no more than `plain`: a dearer one would only state a saving
        that is larger than that against `plain`.  None is wanted where no point can be claimed.
        """
        margin = self.rules.margin
        open_points = list(takewhile(lambda each: each.holds(margin) or each.is_near(margin), reversed(self.points)))
        if not self.can_show or not open_points:
            return set()
        near = [each for each in [*open_points, *self._cheaper_samplers()] if each.is_near(margin)]
        return {plan.key for each in near for plan in (each.plan, *each.references)}

    def _cheaper_samplers(self) -> list[Comparison]:
        """Return the full-width samplers that a saving would be smaller against."""
        if (cheapest := self.cheapest_sampler()) is not None:
            return self.samplers[: self.samplers.index(cheapest)]
        most = self.plain.cost(self.rules.cost) * (1 + 1e-9)  # equal sums in another order are equal to rounding only
        return [each for each in self.samplers if each.plan.cost(self.rules.cost) <= most]


def compare_plans(confirmed: pd.DataFrame, rules: Rules, lacking: str = "") -> Standing | None:
    """Return all confirmed plans beside the references; None where full width was not confirmed.

    The reference of a judge has the least mean score on it over the seeds of the first look.  `lacking` are full-width
    plans that could be one and have no scores.
    """
    plans = read_plans(confirmed)
    plain = next((plan for plan in plans if plan.kind == "full"), None)
    if plain is None or plain.scores.empty:
        return None
    full_width = _at_full_width(plans)
    best = _best_of_each(full_width, rules)
    # Equal sums in another order are equal to rounding only.
    cheaper = [p for p in plans if p.kind == "front" and p.cost(rules.cost) < plain.cost(rules.cost) / (1 + 1e-9)]
    points = [
        (point, _best_of_each([plan for plan in full_width if plan.key != point.key] or full_width, rules))
        for point in _each_better(cheaper, rules.cost)
    ]
    return Standing(
        rules,
        judges_of(confirmed),
        plain,
        best.plans,
        _compared(points, rules),
        _compared([(plan, best) for plan in full_width], rules),
        next(iter(_compared([(replace(best.plans[0], scores=best.blurred), best)], rules)), None),
        lacking,
    )


def _at_full_width(plans: Sequence[ConfirmedPlan]) -> list[ConfirmedPlan]:
    """Return the plans at full width, each once, also those of more steps than the search's own.

    Whatever confirmed them counts: a front point on a sampler that was fitted to it is a full-width sampler, too.
    """
    found: dict[tuple[str, str], ConfirmedPlan] = {}
    for plan in plans:
        if plan.is_full_width and len(plan.scores):
            found.setdefault(plan.key, plan)
    return list(found.values())


@dataclass(frozen=True, eq=False)
class _Best:
    """The best plan on each judge, with its scores on that judge, also of blurred images."""

    plans: tuple[ConfirmedPlan, ...]
    scores: pd.DataFrame
    blurred: pd.DataFrame


def _best_of_each(full_width: Sequence[ConfirmedPlan], rules: Rules) -> _Best:
    judges = full_width[0].scores.columns
    plans = tuple(min(full_width, key=lambda plan: plan.first_mean(rules.looks[0], judge)) for judge in judges)
    named = list(zip(plans, judges, strict=True))
    scores = pd.concat([plan.scores[[judge]] for plan, judge in named], axis=1, join="inner")
    blurred = pd.concat([plan.blurred.reindex(columns=[judge]) for plan, judge in named], axis=1, join="inner")
    return _Best(plans, scores, blurred)


def _each_better(plans: Sequence[ConfirmedPlan], cost: str) -> list[ConfirmedPlan]:
    """Return the plans that scored better in the search than all cheaper ones.

    A front of two objectives has no others.  On a front of more, a dear point of poor FID would end the sequence.
    """
    kept: list[ConfirmedPlan] = []
    for plan in sorted(plans, key=lambda plan: plan.cost(cost)):
        if not any(cheaper.searched <= plan.searched for cheaper in kept):
            kept.append(plan)
    return kept


def _compared(pairs: Sequence[tuple[ConfirmedPlan, _Best]], rules: Rules) -> list[Comparison]:
    """Return each plan beside its best, cheapest first; plans that share no seed with it are left out."""
    common = [(plan, best) for plan, best in pairs if len(plan.scores.index.intersection(best.scores.index))]
    return [_compare(plan, best, rules) for plan, best in sorted(common, key=lambda pair: pair[0].cost(rules.cost))]


def _compare(plan: ConfirmedPlan, best: _Best, rules: Rules) -> Comparison:
    """Compare over as many seeds as the last look that the plan has seeds for."""
    shared = plan.scores.index.intersection(best.scores.index).sort_values()
    count = max((look for look in rules.looks if look <= len(shared)), default=len(shared))
    seeds = shared[:count]
    differences = [
        paired_difference(
            plan.scores.loc[seeds, judge].to_numpy(dtype=np.float64),
            best.scores.loc[seeds, judge].to_numpy(dtype=np.float64),
            rules.level,
        )
        for judge in plan.scores.columns
    ]
    return Comparison(plan, best.plans, tuple(differences), count)


def make_claim(standing: Standing, images: int) -> dict[str, Any]:
    """Return the claim as JSON values: of the claimed plan or, where there is none, of the dearest, which failed.

    A claim that does not hold saves nothing: its savings are None.  So is what is saved against full-width samplers of
    equal quality where there are none, since the judges differ on the best.
    """
    rules = standing.rules
    passing, tested = standing.claimed(), standing.tested()
    shown = passing or next(reversed(standing.points), None)
    best = standing.cheapest_sampler()
    cheapest = None if best is None else best.plan
    claim: dict[str, Any] = {
        "holds": passing is not None,
        "plan": None if shown is None else shown.plan.plan,
        "margin": rules.margin,
        "judges": [] if shown is None else _judges(standing, shown),
        "flops_saved": None if passing is None else _saved(passing.plan.gflops, standing.plain.gflops),
        "flops_saved_against_best_full_width": (
            None if passing is None or cheapest is None else _saved(passing.plan.gflops, cheapest.gflops)
        ),
        "latency_saved": None if passing is None else _saved(passing.plan.latency_ms, standing.plain.latency_ms),
        "reference": _plan_facts(standing.references[0]),
        "seeds": 0 if shown is None else shown.seeds,
        "images": images,
        "blurred_reference": _blurred_facts(standing),
        "lacking": standing.lacking,
        "correction": {
            "points": SEQUENCE,
            "tested": len(tested),
            "of": len(standing.points),
            "looks": f"Bonferroni over {rules.all_looks}",
            "error": ERROR,
        },
    }
    return claim | {
        "trial": None if shown is None else shown.plan.trial,
        "sampler": "" if shown is None else shown.plan.sampler,
        "gflops": None if shown is None else shown.plan.gflops,
        "more_may_help": shown is not None and standing.can_show and shown.is_near(rules.margin),
        "level": rules.level,
        "looks": list(rules.looks),
        "other_looks": rules.other_looks,
        "full": _plan_facts(standing.plain),
        "best_full_width": None if cheapest is None else _plan_facts(cheapest),
    }


CLAIM_KEYS = (
    "holds",
    "plan",
    "sampler",
    "margin",
    "judges",
    "flops_saved",
    "flops_saved_against_best_full_width",
    "latency_saved",
    "reference",
    "seeds",
    "images",
    "blurred_reference",
    "lacking",
    "correction",
)
"""What `stepfront claim --json` prints of a claim."""


def _judges(standing: Standing, compared: Comparison) -> list[dict[str, Any]]:
    return [
        {"features": name, "score": d.score, "reference": d.reference, "difference": d.mean}
        | {"interval": [_finite(d.low), _finite(d.high)]}
        | {"reference_plan": best.plan, "reference_sampler": best.sampler}
        for name, d, best in zip(standing.judges, compared.differences, compared.references, strict=True)
    ]


def _blurred_facts(standing: Standing) -> dict[str, Any] | None:
    if standing.blurred is None:
        return None
    return {"passes": not standing.sees_blur, "judges": _judges(standing, standing.blurred)}


def _plan_facts(plan: ConfirmedPlan) -> dict[str, Any]:
    """Return a full-width plan with its mean score per judge."""
    means = [float(plan.scores[judge].mean()) for judge in plan.scores.columns]
    costs = {"gflops": plan.gflops, "latency_ms": _finite(plan.latency_ms)}
    return {"plan": plan.plan, "sampler": plan.sampler} | costs | {"scores": means}


def _saved(cost: float, full: float) -> float | None:
    return _finite(1 - cost / full) if full else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
