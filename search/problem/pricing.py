"""Price levels before any evaluation, and decide which of them keep the constraints on cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stepfront.arrays import Array
from stepfront.errors import InputError
from stepfront.search.config import parse_constraint
from stepfront.search.genomes.candidates import UnitSums
from stepfront.search.genomes.encodings import Encoding, Levels, Plans
from stepfront.search.objectives import excess
from stepfront.search.problem.problem import SearchProblem
from stepfront.trainers.inference.cost import WidthCost, steps_latency_ms


@dataclass(frozen=True)
class Price:
    """What levels cost; `of_all` returns it for plans [N, units], [N]."""

    of_all: Callable[[Plans], Array]

    def __call__(self, levels: Levels) -> float:
        """Return what the levels of one plan cost."""
        return float(self.of_all(levels[None])[0])


def level_prices(
    problem: SearchProblem, costs: dict[float, WidthCost], encoding: Encoding | None = None
) -> dict[str, Price]:
    """Return what levels cost, by the name of the objective; the sums are those of a plan's cost, to rounding.

    Levels are of the search's encoding, or another one.
    """
    encoding = encoding or problem.encoding
    lengths = encoding.lengths

    def summed(each: list[float]) -> Price:
        table = np.array([*each, 0.0])  # level -1, a step that is left out, is the last entry
        return Price(UnitSums(lengths[:, None] * table))

    def latencies(plans: Plans) -> Array:
        # A full step is slower where the next one reuses its features, so steps can't be summed one by one.
        return np.array([steps_latency_ms(encoding.step_variants(levels), costs) for levels in plans])

    variants = encoding.variants
    slower = any(variant.reuse and costs[variant.width].keep_latency_ms is not None for variant in variants)
    return {
        "gflops": summed([costs[variant.width].gflops_of(variant) for variant in variants]),
        "latency_ms": Price(latencies)
        if slower
        else summed([costs[variant.width].ms_of(variant) for variant in variants]),
    }


def affordability(
    problem: SearchProblem, costs: dict[float, WidthCost], encoding: Encoding | None = None
) -> Callable[[Levels], bool] | None:
    """Return a function that decides whether levels, of the search's encoding or another, keep constraints on cost.

    None where there are none.  Raises InputError where no plan can keep one of them.
    """
    encoding = encoding or problem.encoding
    prices = level_prices(problem, costs, encoding)
    limits = [limit for limit in map(parse_constraint, problem.settings.evaluation.constraints) if limit[0] in prices]
    for name, sign, bound in limits:
        _check_possible(encoding, name, sign, bound, prices[name])

    def keeps(levels: Levels) -> bool:
        return all(excess(prices[name](levels), sign, bound) <= 0 for name, sign, bound in limits)

    return keeps if limits else None


def _check_possible(encoding: Encoding, name: str, sign: str, bound: float, price: Price) -> None:
    level, which = (0, "narrowest uniform plan") if sign == "<=" else (encoding.highest, "widest uniform plan")
    extreme = price(np.full(encoding.units, level))
    if sign == "<=" and encoding.marks:
        # No plan costs less.  Of uniform plans, one that reuses features would be repaired to a dearer one.
        extreme = min(price(np.full(encoding.units, level)) for level in range(encoding.highest + 1))
        which = "cheapest variant at every step"
    # With skip a plan may be cheaper than any uniform plan; none is more expensive than the widest.
    if excess(extreme, sign, bound) > 0 and not (sign == "<=" and encoding.skip):
        raise InputError(
            f"no plan keeps the constraint {name} {sign} {bound:g}: the {which} has {extreme:.4g}; "
            "change evaluation.constraints"
        )
