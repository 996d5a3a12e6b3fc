"""Check the genes of solver and grid: their genome, variation, features, price, and what they leave unchanged."""

from __future__ import annotations

import numpy as np
import pytest

from stepfront.errors import InputError
from stepfront.search.algorithm.proxies import gap_score
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.algorithm.variation import change_gene, count_neighbours, make_child, neighbours
from stepfront.search.config import SpaceSettings
from stepfront.search.genomes.encodings import SKIP_LEVEL, Cuts, Encoding, EvenStages, Stages, Steps
from stepfront.search.genomes.sampler_genes import SamplerGenes, make_plan_encoding
from stepfront.trainers.config import SamplerSettings

WIDTHS = (0.25, 0.5, 1.0)
SOLVERS, GRIDS = ("unipc_2", "dpmpp_2m", "ipndm_3"), ("quadratic", "leading")
PLAIN: tuple[Encoding, ...] = (
    EvenStages(6, WIDTHS, 6),
    Steps(5, WIDTHS, True),
    Stages(8, WIDTHS, False, 4),
    Cuts(6, WIDTHS, True, 2),
)


@pytest.fixture(params=PLAIN, ids=lambda e: f"{type(e).__name__}-{e.skip}")
def encoding(request: pytest.FixtureRequest) -> SamplerGenes:
    return SamplerGenes(request.param, SOLVERS, GRIDS)


def test_genomes_go_round_and_name_a_sampler(encoding: SamplerGenes) -> None:
    rng, seen = np.random.default_rng(0), set()
    for _ in range(200):
        levels = encoding.project(encoding.draw(rng))
        assert np.array_equal(encoding.unpack(encoding.pack(levels)), levels)
        assert np.array_equal(encoding.project(levels), levels)
        assert encoding.step_widths(levels) == encoding.plain.step_widths(levels[: encoding.units])
        seen.add(encoding.sampler_of(levels))
    assert seen == {(solver, grid) for solver in SOLVERS for grid in GRIDS}


def test_levels_without_genes_run_on_the_searchs_own_sampler(encoding: SamplerGenes) -> None:
    widest = np.full(encoding.units, encoding.highest)
    assert encoding.sampler_of(widest) == ("unipc_2", "quadratic")
    assert encoding.pack(encoding.project(widest)) == encoding.plain.pack(widest) + "/00"
    own = {encoding.sampler_of(encoding.on_combination(widest, number)) for number in range(6)}
    assert len(own) == 6
    assert encoding.sampler_of(encoding.on_combination(widest, 6)) == ("unipc_2", "quadratic")
    assert encoding.sampler_of(encoding.on_sampler(widest, "ipndm_3", "leading")) == ("ipndm_3", "leading")
    assert encoding.sampler_of(encoding.on_sampler(widest, "ddim", "leading")) == ("unipc_2", "leading")


@pytest.mark.parametrize("genome", ["3333", "2222/", "2222/0", "2222/30", "2222/02", "2222/000", "2222/-0", "/00"])
def test_other_texts_are_refused(genome: str) -> None:
    with pytest.raises(InputError, match=r"is not a genome"):
        SamplerGenes(Stages(8, WIDTHS, False, 4), SOLVERS, GRIDS).unpack(genome)


def test_children_vary_widths_as_before_and_genes_beside_them(encoding: SamplerGenes) -> None:
    rng = np.random.default_rng(1)
    first, second = (encoding.project(encoding.draw(rng)) for _ in range(2))
    first = encoding.on_sampler(first, "unipc_2", "quadratic")
    second = encoding.on_sampler(second, "ipndm_3", "quadratic")
    children = [make_child(rng, first, second, encoding, 0.5, 1) for _ in range(400)]
    found = {encoding.sampler_of(child.levels) for child in children}
    assert found >= {("unipc_2", "quadratic"), ("ipndm_3", "quadratic"), ("dpmpp_2m", "quadratic")}
    crossed = [child for child in children if child.origin == "crossover"]
    assert {encoding.sampler_of(child.levels)[1] for child in crossed} == {"quadratic"}  # both parents' own
    assert all(np.array_equal(encoding.project(child.levels), child.levels) for child in children)
    only_gene = [c for c in children if np.array_equal(c.levels[:-2], first[:-2]) and c.levels[-1] != first[-1]]
    assert only_gene  # a mutation of a gene alone


def test_a_gene_changes_to_each_other_choice_and_never_stays() -> None:
    rng = np.random.default_rng(2)
    found = [tuple(change_gene(rng, np.array([1, 0]), (3, 1)).tolist()) for _ in range(60)]
    assert set(found) == {(0, 0), (2, 0)}


def test_one_solver_and_one_grid_are_no_genes() -> None:
    space = SpaceSettings(encoding="steps", skip=False, solvers=("unipc_2",), grids=("quadratic",))
    made = make_plan_encoding(space, SamplerSettings(steps=6), WIDTHS)
    assert isinstance(made, Stages)
    assert made.choices == ()
    assert made.sampler_of(np.zeros(6, dtype=np.int64)) is None


def test_the_searchs_own_sampler_is_the_first_choice() -> None:
    space = SpaceSettings(solvers=("ipndm_3", "unipc_2"), grids=("leading", "quadratic"))
    made = make_plan_encoding(space, SamplerSettings(), WIDTHS)
    assert isinstance(made, SamplerGenes)
    assert made.solvers == ("unipc_2", "ipndm_3")
    assert made.grids == ("quadratic", "leading")


def test_the_model_sees_one_feature_per_solver_and_grid(encoding: SamplerGenes) -> None:
    rng = np.random.default_rng(3)
    gap = rng.random((encoding.steps, 3))
    plans = [encoding.project(encoding.draw(rng)) for _ in range(8)]
    with_genes = PlanFeatures(encoding, gap)(plans)
    without = PlanFeatures(encoding.plain, gap)([levels[: encoding.units] for levels in plans])
    added = with_genes[:, without.shape[1] - 1 : -1]
    assert added.shape == (8, 5)
    assert np.array_equal(np.delete(with_genes, np.s_[without.shape[1] - 1 : -1], axis=1), without)
    for row, levels in zip(added, plans, strict=True):
        assert row.sum() == 2
        assert (SOLVERS[int(row[:3].argmax())], GRIDS[int(row[3:].argmax())]) == encoding.sampler_of(levels)


def test_the_gap_reads_widths_alone() -> None:
    plain = Stages(8, WIDTHS, True, 4)
    encoding, gap = SamplerGenes(plain, SOLVERS, GRIDS), np.random.default_rng(4).random((8, 3))
    levels = np.array([0, 1, 2, 1])
    assert gap_score(encoding, gap)(np.array([*levels, 2, 1])) == gap_score(plain, gap)(levels)
    assert np.isnan(gap_score(encoding, gap)(np.array([0, SKIP_LEVEL, 2, 1, 0, 0])))


def test_a_space_of_samplers_alone_has_neighbours() -> None:
    encoding = SamplerGenes(Steps(5, (1.0,), False), SOLVERS, GRIDS)
    plan = np.array([0, 0, 0, 0, 0, 0, 0])
    count = count_neighbours(encoding)
    assert count == len(SOLVERS) - 1 + len(GRIDS) - 1
    found = set(map(tuple, neighbours(np.tile(plan, (count, 1)), np.arange(count), encoding)))
    assert found == {(0,) * 5 + pair for pair in ((1, 0), (2, 0), (0, 1))}
