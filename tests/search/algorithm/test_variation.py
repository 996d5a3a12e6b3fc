"""Check variation: children stay in the space, keep blocks, and have the right cost."""

from __future__ import annotations

import numpy as np
import pytest

from stepfront.search.algorithm.variation import (
    MUTATIONS,
    change_run,
    count_neighbours,
    exchange,
    make_child,
    mutations_of,
    neighbours,
    one_point,
    project_all,
    shift_boundary,
    thin,
    two_point,
)
from stepfront.search.genomes.encodings import SKIP_LEVEL, Cuts, Encoding, EvenStages, Stages, Steps, run_bounds
from stepfront.search.genomes.sampler_genes import SamplerGenes

WIDTHS = (0.25, 0.5, 0.75, 1.0)
SPACES = [
    Stages(20, WIDTHS, False, 10),
    Stages(23, WIDTHS, True, 7),
    Steps(200, WIDTHS, True),
    Cuts(50, WIDTHS, False, 2),
    EvenStages(20, WIDTHS, 10),
]


def draw(encoding: Encoding, rng: np.random.Generator) -> np.ndarray:
    return encoding.project(rng.integers(encoding.lowest, encoding.highest + 1, encoding.units))


@pytest.mark.parametrize("encoding", SPACES, ids=lambda e: type(e).__name__)
def test_children_are_plans_of_the_space(encoding: Encoding) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        first, second = draw(encoding, rng), draw(encoding, rng)
        before = first.copy(), second.copy()
        child = make_child(rng, first, second, encoding, 0.7, 3)
        assert np.array_equal(encoding.project(child.levels), child.levels)
        assert child.origin in ("crossover", "mutation")
        assert np.array_equal(first, before[0])
        assert np.array_equal(second, before[1])


@pytest.mark.parametrize("recombine", [one_point, two_point])
def test_crossover_takes_every_gene_from_a_parent_and_keeps_blocks(recombine) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    first, second = np.zeros(40, dtype=int), np.full(40, 3)
    for _ in range(100):
        child = recombine(rng, first, second)
        assert set(child) <= {0, 3}
        assert len(run_bounds(child)) - 1 <= 3  # gene-wise crossover would make about twenty runs


def test_exchange_costs_exactly_the_same() -> None:
    rng = np.random.default_rng(0)
    macs = np.array([7, 31, 73, 129])
    for encoding in (Stages(20, WIDTHS, False, 10), Stages(23, WIDTHS, False, 7)):
        moved = 0
        for _ in range(200):
            levels = draw(encoding, rng)
            child = exchange(rng, levels, encoding)
            assert (encoding.lengths * macs[child]).sum() == (encoding.lengths * macs[levels]).sum()
            moved += not np.array_equal(child, levels)
        assert moved > 150


def test_shift_boundary_keeps_the_runs_and_their_order() -> None:
    rng = np.random.default_rng(0)
    encoding = Steps(40, WIDTHS, False)
    levels = np.repeat([0, 2, 3], [15, 15, 10])
    for _ in range(100):
        child = shift_boundary(rng, levels, encoding)
        runs = [int(child[b]) for b in run_bounds(child)[:-1]]
        assert not np.array_equal(child, levels)
        assert [level for level in (0, 2, 3) if level in runs] == runs


def test_change_run_changes_one_whole_run() -> None:
    rng = np.random.default_rng(0)
    levels = np.repeat([0, 2, 3], [4, 3, 3])
    for _ in range(50):
        changed = np.flatnonzero(change_run(rng, levels, Stages(20, WIDTHS, False, 10)) != levels)
        assert list(changed) in ([0, 1, 2, 3], [4, 5, 6], [7, 8, 9])


def test_thin_leaves_out_every_second_unit_of_a_stretch_or_takes_all_of_it() -> None:
    rng, levels = np.random.default_rng(0), np.array([3, 2, -1, 1, -1, -1, 0, 3, 2, 1])
    thinner = fuller = 0
    for _ in range(200):
        child = thin(rng, levels, Steps(10, WIDTHS, True))
        changed = np.flatnonzero(child != levels)
        if not len(changed):
            continue
        if (child[changed] == SKIP_LEVEL).all():
            taken = np.flatnonzero(levels != SKIP_LEVEL)
            assert set(np.diff(np.searchsorted(taken, changed))) <= {2}
            thinner += 1
        else:
            assert (levels[changed] == SKIP_LEVEL).all()
            assert np.array_equal(child[changed], child[changed - 1])
            fuller += 1
    assert thinner > 50
    assert fuller > 30


def test_only_plans_that_may_skip_are_thinned() -> None:
    assert [thin in mutations_of(encoding) for encoding in SPACES] == [encoding.skip for encoding in SPACES]
    for encoding in (Stages(1, WIDTHS, True, 1), EvenStages(1, WIDTHS, 1)):
        assert list(encoding.project(thin(np.random.default_rng(0), np.array([2]), encoding))) == [2]


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_mutations_work_on_one_unit_and_one_width(mutate) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    single = Stages(5, (1.0,), False, 1)
    assert list(mutate(rng, np.array([0]), single)) == [0]
    for _ in range(20):
        levels = mutate(rng, np.array([1, 1, 1]), Stages(6, (0.5, 1.0), False, 3))
        assert len(levels) == 3
        assert set(levels) <= {0, 1}


def test_exchange_keeps_the_cost_in_cuts_too() -> None:
    rng = np.random.default_rng(0)
    encoding = Cuts(20, WIDTHS, False, 2)
    macs = np.array([7, 31, 73, 129])
    for _ in range(100):
        levels = draw(encoding, rng)
        assert macs[encoding.project(exchange(rng, levels, encoding))].sum() == macs[levels].sum()


def all_neighbours(levels: np.ndarray, encoding: Encoding) -> np.ndarray:
    count = count_neighbours(encoding)
    return neighbours(np.tile(levels, (count, 1)), np.arange(count), encoding)


@pytest.mark.parametrize("encoding", [Stages(8, (0.25, 0.5, 1.0), False, 4), Stages(8, (0.25, 0.5, 1.0), True, 4)])
def test_neighbours_are_all_plans_of_one_change(encoding: Encoding) -> None:
    levels = np.array([0, 2, 1, 1])
    found = all_neighbours(levels, encoding)
    assert len(found) == 4 * (3 if encoding.skip else 2)
    assert len({encoding.pack(each) for each in found}) == len(found)
    assert all((each != levels).sum() == 1 for each in found)


def test_neighbours_change_genes_of_the_sampler_too() -> None:
    encoding = SamplerGenes(Stages(4, (0.5, 1.0), False, 2), ("ddim", "unipc_2"), ("trailing", "quadratic", "leading"))
    levels = np.array([0, 1, 1, 0])
    found = {tuple(map(int, each)) for each in all_neighbours(levels, encoding)}
    assert found == {(1, 1, 1, 0), (0, 0, 1, 0), (0, 1, 0, 0), (0, 1, 1, 1), (0, 1, 1, 2)}


@pytest.mark.parametrize(
    "encoding",
    [
        Stages(8, (0.25, 0.5, 1.0), True, 6),
        EvenStages(8, (0.25, 0.5, 1.0), 6),
        Cuts(8, (0.25, 0.5, 1.0), True, 2),
        Stages(8, (0.5, 1.0, 1.0), True, 6, ("", "", "r")),
        SamplerGenes(EvenStages(8, (0.25, 0.5, 1.0), 5), ("ddim", "unipc_2"), ("trailing", "quadratic")),
    ],
)
def test_many_plans_are_projected_and_packed_as_each_is(encoding: Encoding) -> None:
    rng = np.random.default_rng(0)
    plans = rng.integers(-2, 4, (200, encoding.units + len(encoding.choices)))
    plans[0] = -1
    projected = project_all(plans, encoding)
    assert np.array_equal(projected, [encoding.project(levels) for levels in plans])
    assert encoding.pack_all(projected) == [encoding.pack(levels) for levels in projected]
