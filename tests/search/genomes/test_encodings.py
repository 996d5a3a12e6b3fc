"""Check encodings: round trips, plan lengths, and projections to valid levels."""

from __future__ import annotations

import numpy as np
import pytest

from stepfront.errors import InputError
from stepfront.search.config import SpaceSettings
from stepfront.search.genomes.encodings import (
    SKIP_LEVEL,
    Cuts,
    Encoding,
    EvenStages,
    Stages,
    Steps,
    make_encoding,
    run_bounds,
)

WIDTHS = (0.25, 0.5, 0.75, 1.0)

ENCODINGS: list[Encoding] = [
    encoding
    for skip in (False, True)
    for encoding in (
        Stages(20, WIDTHS, skip, 10),
        Stages(23, WIDTHS, skip, 7),
        Steps(13, WIDTHS, skip),
        Steps(1000, WIDTHS, skip),
        Cuts(20, WIDTHS, skip, 1),
        Cuts(50, WIDTHS, skip, 3),
    )
]


def random_levels(encoding: Encoding, rng: np.random.Generator) -> np.ndarray:
    return encoding.project(rng.integers(encoding.lowest, encoding.highest + 1, encoding.units))


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: f"{type(e).__name__}-{e.steps}-{e.skip}")
def test_round_trips_and_lengths(encoding: Encoding) -> None:
    rng = np.random.default_rng(0)
    assert encoding.lengths.sum() == encoding.steps
    assert np.ptp(encoding.lengths) <= 1
    for _ in range(20):
        levels = random_levels(encoding, rng)
        assert np.array_equal(encoding.unpack(encoding.pack(levels)), levels)
        widths = encoding.step_widths(levels)
        assert len(widths) == encoding.steps
        assert any(widths)
        assert np.array_equal(encoding.levels_of(widths), levels)
        assert np.array_equal(encoding.project(levels), levels)


@pytest.mark.parametrize(
    "encoding",
    [
        EvenStages(20, WIDTHS, 10),
        EvenStages(13, WIDTHS, 13),
        EvenStages(5, WIDTHS, 9),
        EvenStages(23, WIDTHS, 7),
        EvenStages(50, WIDTHS, 33),
        EvenStages(1000, WIDTHS, 10),
    ],
)
def test_even_stages_are_a_plan_of_that_many_steps_in_one_form(encoding: EvenStages) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        raw = rng.integers(SKIP_LEVEL, 4, encoding.units)
        levels = encoding.project(raw)
        taken = np.flatnonzero(levels != SKIP_LEVEL)
        if (raw != SKIP_LEVEL).any():
            assert list(levels[taken]) == [level for level in raw if level != SKIP_LEVEL]
        assert taken[0] == 0  # pure noise is never begun at a later time
        assert np.ptp(np.diff([*taken, encoding.units])) <= 1
        assert np.array_equal(encoding.project(levels), levels)
        assert np.array_equal(encoding.unpack(encoding.pack(levels)), levels)
        widths = encoding.step_widths(levels)
        assert widths == tuple(WIDTHS[levels[unit]] for unit in taken for _ in range(encoding.lengths[unit]))
        if not np.ptp(encoding.lengths):
            assert np.array_equal(encoding.levels_of(widths), levels)
        assert len(encoding.step_widths(encoding.levels_of(widths))) == len(widths)
        assert encoding.lengths[taken].sum() == len(widths)  # so a plan's price is read off its levels


def test_even_stages_read_plans_of_other_lengths() -> None:
    encoding = EvenStages(20, WIDTHS, 10)
    assert encoding.step_widths(encoding.levels_of((1.0,) * 50)) == (1.0,) * 20
    assert encoding.step_widths(encoding.levels_of((0.5, 0.5, 1.0))) == (0.5, 0.5, 1.0, 1.0)
    assert encoding.step_widths(encoding.levels_of((0.5, 0.0, 0.0, 0.0, 1.0, 0.0))) == (1.0, 1.0)


def test_distinct_levels_have_distinct_genomes() -> None:
    encoding = Stages(8, (0.5, 1.0), True, 4)
    grid = [encoding.project(np.array(i) - 1) for i in np.ndindex(3, 3, 3, 3)]
    plans = {encoding.step_widths(levels) for levels in grid}
    assert len({encoding.pack(levels) for levels in grid}) == len(plans) == 80  # all but the plan of nothing


def test_projection_to_cuts_keeps_the_longest_runs() -> None:
    encoding = Cuts(10, WIDTHS, False, 1)
    projected = encoding.project(np.array([0, 0, 0, 0, 1, 3, 3, 3, 3, 3]))
    assert np.array_equal(projected, [0, 0, 0, 0, 0, 3, 3, 3, 3, 3])
    rng = np.random.default_rng(1)
    for _ in range(50):
        assert len(run_bounds(random_levels(encoding, rng))) - 2 <= 1


def test_a_plan_of_nothing_takes_the_cleanest_step() -> None:
    encoding = Stages(20, WIDTHS, True, 10)
    levels = encoding.project(np.full(10, SKIP_LEVEL))
    assert list(levels) == [SKIP_LEVEL] * 9 + [0]


def test_more_stages_than_steps_are_steps() -> None:
    assert make_encoding(SpaceSettings(encoding="stages", stages=30), 12, WIDTHS).units == 12


@pytest.mark.parametrize("genome", ["", "0123", "0123401234", "012301230-", "01230123x1"])
def test_foreign_genomes_are_refused(genome: str) -> None:
    with pytest.raises(InputError, match="not a genome"):
        Stages(20, WIDTHS, False, 10).unpack(genome)


@pytest.mark.parametrize("genome", ["0", "01@", "0123@1,2,3", "01@99", "01@x"])
def test_foreign_cut_genomes_are_refused(genome: str) -> None:
    with pytest.raises(InputError, match="not a genome"):
        Cuts(20, WIDTHS, False, 1).unpack(genome if genome != "0" else "7@")


def test_encodings_of_other_stages_or_cuts_are_not_equal() -> None:
    widths = (0.5, 1.0)
    assert Stages(20, widths, False, 5) != Stages(20, widths, False, 10)
    assert Cuts(6, widths, False, 1) != Cuts(6, widths, False, 3)
    assert Stages(20, widths, False, 5) == Stages(20, widths, False, 5)
    assert hash(Stages(20, widths, False, 5)) == hash(Stages(20, widths, False, 5))
