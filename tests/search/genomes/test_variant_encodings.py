"""Spaces of variants: no genome that reuses features which are not there, and widths alone as before."""

from __future__ import annotations

import numpy as np
import pytest

from stepfront.errors import InputError
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.algorithm.variation import exchange, make_child
from stepfront.search.config import SpaceSettings
from stepfront.search.genomes.encodings import SKIP_LEVEL, Cuts, Encoding, EvenStages, Levels, Stages, Steps
from stepfront.search.genomes.encodings import make_encoding as made
from stepfront.search.genomes.sampler_genes import SamplerGenes
from stepfront.trainers.variant import Variant, parse_variant, reuse_problem, runs_text

VARIANTS = tuple(map(parse_variant, ("0.5ru", "0.5u", "1.0ru", "0.5", "1.0r", "1.0u", "1.0")))
WIDTHS, MARKS = tuple(v.width for v in VARIANTS), tuple(v.mark for v in VARIANTS)
SPACES = [
    Stages(20, WIDTHS, False, 10, MARKS),
    Stages(23, WIDTHS, True, 7, MARKS),
    Steps(40, WIDTHS, True, MARKS),
    Cuts(30, WIDTHS, False, 2, MARKS),
    Cuts(30, WIDTHS, True, 3, MARKS),
    EvenStages(20, WIDTHS, 10, MARKS),
]


def levels(text: str) -> Levels:
    return np.array([SKIP_LEVEL if one == "skip" else VARIANTS.index(parse_variant(one)) for one in text.split()])


@pytest.mark.parametrize("encoding", SPACES, ids=lambda e: type(e).__name__)
def test_no_genome_that_variation_makes_reuses_features_that_are_not_there(encoding: Encoding) -> None:
    rng, reusing = np.random.default_rng(0), 0
    parents = [encoding.project(encoding.draw(rng)) for _ in range(20)]
    for _ in range(300):
        first, second = (parents[int(rng.integers(len(parents)))] for _ in range(2))
        child = make_child(rng, first, second, encoding, 0.5, 3).levels
        assert not reuse_problem(encoding.step_variants(child))
        assert np.array_equal(encoding.project(child), child)
        assert np.array_equal(encoding.unpack(encoding.pack(child)), child)
        reusing += any(variant.reuse for variant in encoding.step_variants(child))
        parents[int(rng.integers(len(parents)))] = child
    assert reusing > 30


@pytest.mark.parametrize("encoding", SPACES, ids=lambda e: type(e).__name__)
def test_the_cost_of_levels_is_the_sum_over_their_steps(encoding: Encoding) -> None:
    rng, cost = np.random.default_rng(1), np.arange(1.0, 8.0)
    for _ in range(50):
        drawn = encoding.project(encoding.draw(rng))
        steps = [v for v in encoding.step_variants(drawn) if v.width]
        summed = (encoding.lengths * np.array([*cost, 0.0])[drawn]).sum()
        assert summed == sum(cost[VARIANTS.index(step)] for step in steps)
        assert tuple(v.width for v in encoding.step_variants(drawn)) == encoding.step_widths(drawn)


@pytest.mark.parametrize(
    ("given", "repaired"),
    [
        ("1.0r 1.0r 1.0 0.5", "1.0 1.0r 1.0 0.5"),
        ("0.5 1.0r 1.0r 0.5", "0.5 1.0 1.0r 0.5"),
        ("1.0 0.5 1.0r 1.0ru", "1.0 0.5 1.0 1.0ru"),
        ("1.0u 1.0r 1.0ru 0.5ru", "1.0u 1.0 1.0ru 0.5u"),
        ("1.0 1.0r 1.0ru 1.0r", "1.0 1.0r 1.0ru 1.0r"),
    ],
)
def test_a_unit_without_features_to_reuse_becomes_full(given: str, repaired: str) -> None:
    encoding = Stages(8, WIDTHS, False, 4, MARKS)
    assert np.array_equal(encoding.project(levels(given)), levels(repaired))
    if given != repaired:
        with pytest.raises(InputError, match="a stage has no features to reuse"):
            encoding.unpack(Stages(8, WIDTHS, False, 4, MARKS).pack(levels(given)))


def test_skipped_units_do_not_end_reuse() -> None:
    encoding = Stages(8, WIDTHS, True, 4, MARKS)
    assert np.array_equal(encoding.project(levels("1.0 skip 1.0r 1.0r")), levels("1.0 skip 1.0r 1.0r"))
    assert runs_text(encoding.step_variants(levels("1.0 skip 1.0r 1.0r"))) == "2x1.00 2xskip 4x1.00r"


def test_a_run_of_cuts_becomes_full_complete() -> None:
    encoding = Cuts(6, WIDTHS, False, 1, MARKS)
    given = levels("0.5 0.5 0.5 1.0r 1.0r 1.0r")
    assert runs_text(encoding.step_variants(encoding.project(given))) == "3x0.50 3x1.00"


def test_an_exchange_leaves_no_reuse_without_features() -> None:
    encoding, rng = Stages(8, WIDTHS, False, 4, MARKS), np.random.default_rng(0)
    for _ in range(30):
        child = exchange(rng, levels("1.0 1.0r 0.5 0.5u"), encoding)
        assert np.array_equal(encoding.project(child), child)


@pytest.mark.parametrize("space", [SpaceSettings(skip=False), SpaceSettings(), SpaceSettings(encoding="cuts")])
def test_variants_without_marks_are_the_encoding_of_their_widths(space: SpaceSettings) -> None:
    assert made(space, 20, [Variant(0.5), Variant(1.0)]) == made(space, 20, [0.5, 1.0])
    assert made(space, 20, [0.5, 1.0]).marks == ()


def test_widths_of_another_search_become_variants_without_marks() -> None:
    for encoding in SPACES:
        near = encoding.levels_of((0.55,) * 5 + (0.9,) * (encoding.steps - 5))
        assert {v.mark for v in encoding.step_variants(near)} == {""}


def test_genes_of_the_sampler_stand_beside_variants() -> None:
    encoding = SamplerGenes(SPACES[0], ("ddim", "unipc_2"), ("trailing",))
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = encoding.project(encoding.draw(rng))
        assert not reuse_problem(encoding.step_variants(drawn))
        assert np.array_equal(encoding.unpack(encoding.pack(drawn)), drawn)


def test_the_model_sees_marks_apart_from_narrower_widths() -> None:
    encoding = Stages(4, WIDTHS, False, 4, MARKS)
    gap = np.tile(np.linspace(1.0, 0.0, 7), (4, 1))
    found = PlanFeatures(encoding, gap)([levels("1.0 1.0r 0.5u 1.0"), levels("1.0 1.0 0.5 1.0")])
    assert found[0, 4:8].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert found[0, 8:12].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert not found[1, 4:12].any()
    plain = PlanFeatures(Stages(4, (0.5, 1.0), False, 4), gap[:, :2])([np.array([0, 1, 1, 0])])
    assert plain.shape == (1, 5)
    deep = PlanFeatures(Stages(4, (1.0, 0.5, 1.0, 1.0), False, 4, ("d1", "", "d2", "")), gap[:, :4])([np.arange(4)])
    assert deep[0, 4:12].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    scaled = Stages(4, (1.0,) * 4, False, 4, ("g4", "u", "g1.5", ""))
    found = PlanFeatures(scaled, gap[:, :4])([np.array([0, 2, 3, 1])])
    assert found[0, 4:16].tolist() == [*(0.0, 0.0, 0.0, 1.0), *(0.0, 1.0, 0.0, 0.0), *(1.0, 0.0, 0.0, 0.0)], "u, 1.5, 4"


def test_the_floor_of_the_gap_is_a_share_of_the_worst_variants() -> None:
    encoding = Stages(4, (1.0, 0.5, 1.0), False, 4, ("u", "", ""))
    gap = np.tile([0.0, 3.0, 0.0], (4, 1))
    found = PlanFeatures(encoding, gap)([np.array([2, 2, 2, 2]), np.array([1, 2, 2, 2])])
    assert found[:, -1] == pytest.approx([0.5 * np.log(0.12), 0.5 * np.log(3.12)])
