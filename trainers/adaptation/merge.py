"""Merge the weights of groups of times into one network (DeMe: Ma et al., CVPR 2025, arXiv 2410.06664).

merged = base + sum_i w_i (group_i - base).  The factors w are searched on the held-out loss, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

Factors = tuple[float, ...]

SPACINGS = (0.5, 0.25, 0.125)
"""By how much a factor is moved, in turn; after each move that helps, all are tried again."""


def merged(base: Mapping[str, Tensor], groups: Sequence[Mapping[str, Tensor]], factors: Factors) -> dict[str, Tensor]:
    """Return the base plus the groups' differences from it, each times its factor."""
    result = {name: weights.clone() for name, weights in base.items()}
    for group, factor in zip(groups, factors, strict=True):
        for name, weights in result.items():
            if factor:
                weights += factor * (group[name] - base[name])
    return result


def find_factors(loss: Callable[[Factors], float], groups: int) -> tuple[Factors, float]:
    """Return the factors of the smallest loss, and that loss, by moves of one factor at a time.

    It starts from equal factors with the sum 1 and from none, which is the base: the result is never worse than these.
    """
    known: dict[Factors, float] = {}

    def measured(factors: Factors) -> float:
        if factors not in known:
            known[factors] = loss(factors)
        return known[factors]

    best = min(((1 / groups,) * groups, (0.0,) * groups), key=measured)
    for spacing in SPACINGS:
        moved = True
        while moved:
            moved = False
            for place in range(groups):
                for move in (spacing, -spacing):
                    tried = (*best[:place], round(best[place] + move, 9), *best[place + 1 :])
                    if 0 <= tried[place] <= 1 and measured(tried) < measured(best):
                        best, moved = tried, True
    return best, measured(best)
