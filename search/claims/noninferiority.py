"""Test whether a plan is at most a margin worse than a reference, from scores on the same noise seeds.

The null hypothesis is that the plan is worse by the margin or more.  It is rejected where the upper end of the interval
of the mean difference, noise seed by noise seed, lies below the margin.  Scores are minimised.

Seeds may be added and the test repeated.  Every look at the scores is one more chance to be wrong.  So each interval is
at level 1 - 0.05 / looks (Bonferroni over all looks that can be taken, whether or not they are).
"""

from __future__ import annotations

from dataclasses import dataclass

from stepfront.arrays import Array
from stepfront.search.pareto import interval

ERROR = 0.05
"""Probability, over all looks, that an interval misses the true difference."""


@dataclass(frozen=True)
class Difference:
    """Mean scores of a plan and of its reference, and the interval [low, high] of their difference."""

    score: float
    reference: float
    mean: float
    low: float
    high: float

    def not_worse(self, share: float) -> bool:
        """Return whether the plan is shown to be worse by less than `share` of the reference's score."""
        return self.high < share * self.reference

    def may_hold(self, share: float) -> bool:
        """Return whether the mean difference is below the margin, so that a narrower interval would show it."""
        return self.mean < share * self.reference


def paired_difference(scores: Array, references: Array, level: float) -> Difference:
    """Return the difference of scores [seeds] to those of the reference [seeds] on the same seeds.

    The interval is Student's, for the mean over seeds; it is NaN for fewer than two seeds.
    """
    mean, low, high = interval(scores - references, level)
    return Difference(float(scores.mean()), float(references.mean()), mean, low, high)


def plan_looks(first: int, most: int) -> tuple[int, ...]:
    """Return the numbers of seeds at which the test may be taken: `first`, twice that, and so on, up to `most`.

    There is one look, at `first`, where `most` is not larger.
    """
    return (*range(first, most, first), most) if most > first else (first,)


def level_of_each(looks: int) -> float:
    """Return the level of each interval, so that all of them hold together with probability 0.95."""
    return 1 - ERROR / looks
