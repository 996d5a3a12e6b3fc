"""Sums over candidates by change are those of the plans, and searches with and without them make the same trials."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.methods import ours
from stepfront.search.algorithm import surrogate
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.algorithm.variation import changed_candidates, count_neighbours
from stepfront.search.config import RunSettings
from stepfront.search.genomes import candidates
from stepfront.search.genomes.candidates import Candidate, Candidates, Point, UnitSums
from stepfront.search.genomes.encodings import Encoding, EvenStages, Levels, Stages, Steps
from stepfront.search.genomes.sampler_genes import SamplerGenes
from stepfront.search.initial_plans.plan_kinds import PlanSource

WIDTHS = (0.25, 0.5, 0.75, 1.0)
LONG = Stages(130, WIDTHS, False, 65)


def points(encoding: Encoding, count: int) -> list[Point]:
    rng = np.random.default_rng(0)
    plans = [encoding.project(encoding.draw(rng)) for _ in range(count)]
    return [Point(encoding.pack(levels), levels, (i,)) for i, levels in enumerate(plans)]


def some(encoding: Encoding, count: int = 60) -> Candidates:
    """Return changes of five points, with the points themselves between them."""
    rng, plans = np.random.default_rng(1), points(encoding, 5)
    of = [plans[i] for i in rng.integers(0, 5, count)]
    changed = changed_candidates(of, rng.integers(0, count_neighbours(encoding), count), "neighbour", encoding)
    return Candidates([*changed, *(Candidate(point.genome, "mutation", point) for point in plans), *changed[:7]])


@pytest.mark.parametrize(
    "encoding",
    [
        LONG,
        Steps(60, WIDTHS, True),
        EvenStages(60, WIDTHS, 60),
        SamplerGenes(Stages(8, WIDTHS, False, 4), ("ddim", "unipc_2"), ("trailing", "quadratic")),
    ],
)
def test_a_candidate_has_the_levels_and_the_parents_that_its_genome_says(encoding: Encoding) -> None:
    plans = some(encoding)
    assert len(np.asarray(plans)) == len(plans)
    of = [point.levels for point in points(encoding, 5)]
    for levels, row, candidate in zip(plans, np.asarray(plans), plans.every, strict=True):
        assert np.array_equal(encoding.unpack(candidate.genome), levels)
        assert np.array_equal(row, levels)
        (parent,) = candidate.point.parents
        changes = np.count_nonzero(levels != of[parent])
        assert (changes > 0) == (candidate.origin == "neighbour")
        assert changes <= 1 or isinstance(encoding, EvenStages)  # whose steps are spread again


@pytest.mark.parametrize("coding", ["level", "thermometer"])
def test_features_of_changes_are_those_of_the_plans(coding: str) -> None:
    gap = np.sort(np.random.default_rng(2).uniform(0, 1, (130, 4)), axis=1)[:, ::-1]
    features, plans = PlanFeatures(LONG, gap, coding=coding), some(LONG)
    for _ in range(2):  # the second time, the sums of the points are known
        assert np.allclose(features(plans), features(np.asarray(plans)), rtol=1e-12, atol=1e-12)


def test_costs_of_changes_are_those_of_the_plans() -> None:
    worth = np.random.default_rng(3).uniform(0, 1, (65, 5))
    sums, plans = UnitSums(worth), some(LONG)
    every = np.asarray(plans)
    direct = [sum(worth[unit, level] for unit, level in enumerate(levels)) for levels in every]
    assert sums(every) == pytest.approx(direct)
    assert sums(plans) == pytest.approx(direct)
    assert sums(plans.take(np.array([3, 61]))) == pytest.approx([direct[3], direct[61]])


@pytest.mark.parametrize("encoding", [Steps(60, WIDTHS, True), EvenStages(60, WIDTHS, 60), Steps(49, WIDTHS, False)])
def test_plans_of_other_spaces_have_the_features_and_costs_that_they_have_as_an_array(encoding: Encoding) -> None:
    plans, gap = some(encoding), np.random.default_rng(2).uniform(0, 1, (encoding.steps, 4))
    every, worth = np.asarray(plans), np.random.default_rng(3).uniform(0, 1, (encoding.units, 5))
    assert np.array_equal(PlanFeatures(encoding, gap)(plans), PlanFeatures(encoding, gap)(every))
    assert np.array_equal(UnitSums(worth)(plans), UnitSums(worth)(every))


def test_a_search_with_many_genes_makes_the_same_trials_without_sums_by_change(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, unit = Steps(60, WIDTHS, False), np.arange(60)
    gap = np.array([0.6, 0.2, 0.06, 0.0]) * np.random.default_rng(0).uniform(0.1, 1, (60, 1))
    cost = np.array([0.05, 0.2, 0.5, 1.0]) / 60
    source, defaults = PlanSource(encoding, cost, np.linspace(4, -4, 60), lambda: gap, 0), RunSettings()

    def searched() -> np.ndarray:
        return ours(
            source,
            lambda levels: (float(np.exp(gap[unit, levels].sum())), float(cost[levels].sum())),
            45,
            0,
            defaults.initial_plans,
            defaults.variation,
            defaults.screen,
        )

    by_change = searched()
    monkeypatch.setattr(candidates, "MANY_UNITS", 1000)
    monkeypatch.setattr(surrogate, "MANY_UNITS", 1000)
    assert np.array_equal(searched(), by_change)


def test_sums_stay_the_same_when_those_of_points_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, plans = UnitSums(np.random.default_rng(3).uniform(0, 1, (65, 5))), some(LONG)
    first = sums(plans)
    monkeypatch.setattr(candidates, "MOST_POINTS", 1)
    assert np.array_equal(sums(plans), first)


def test_nothing_as_long_as_a_plan_is_made_for_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    features, sums, plans = PlanFeatures(LONG, np.ones((130, 4))), UnitSums(np.ones((65, 5))), some(LONG)

    def made(self: object, *given: object) -> Levels:
        raise AssertionError("the levels of a candidate were made")

    monkeypatch.setattr(Candidate, "levels", property(made))
    monkeypatch.setattr(Candidates, "__array__", made)
    features(plans)
    sums(plans)
