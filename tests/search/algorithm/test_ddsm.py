"""DDSM's own search, as published."""

from __future__ import annotations

import numpy as np

from stepfront.search.algorithm.ddsm import COST_RATIO, DDSMSearch
from stepfront.search.genomes.encodings import Stages

WIDTHS = (0.25, 0.5, 0.75, 1.0)


def test_ddsm_begins_with_the_uniform_plans_and_keeps_the_fittest() -> None:
    encoding = Stages(8, WIDTHS, False, 8)
    search = DDSMSearch(encoding, 0, population=6)
    first = search.ask(100)
    assert [tuple(p) for p in first[:4]] == [(level,) * 8 for level in range(4)]
    assert len(first) == 6
    fids = [9.0, 5.0, 3.0, 2.0, 8.0, float("inf")]
    shares = [0.1, 0.3, 0.6, 1.0, 0.5, 0.5]
    search.tell(list(zip(fids, shares, strict=True)))
    fitness = [f + COST_RATIO * 2.0 * s for f, s in zip(fids, shares, strict=True)]
    best = first[int(np.argmin(fitness))]
    assert np.array_equal(search._population[0], best)
    children = search.ask(4)
    assert len(children) == 4
    assert not {tuple(c) for c in children} & {tuple(p) for p in first}


SCORED = ((9.0, 0.1), (5.0, 0.3), (3.0, 0.6))


def test_ddsm_weighs_costs_by_the_dearest_plan_that_has_a_score() -> None:
    search = DDSMSearch(Stages(8, WIDTHS, False, 8), 0, population=4)
    search.ask(100)
    search.tell([*SCORED, (float("inf"), 1.0)])  # full width failed
    assert np.allclose(np.sort(search._fitness)[:3], sorted(f + COST_RATIO * 3.0 * s for f, s in SCORED))
