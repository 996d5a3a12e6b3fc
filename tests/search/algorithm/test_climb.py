"""The climb from a proposed plan: within constraints, over genes of the sampler, and across an interruption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from stepfront.arrays import Array
from stepfront.search.algorithm.nsga2 import BlockNSGAII
from stepfront.search.algorithm.screening import make_screening
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.algorithm.trials import GENOME, Proposal
from stepfront.search.algorithm.variation import count_neighbours, neighbours
from stepfront.search.config import ScreenSettings, VariationSettings
from stepfront.search.genomes.encodings import Encoding, Levels, Plans, Stages
from stepfront.search.genomes.sampler_genes import SamplerGenes
from stepfront.search.study.budget import Limits
from stepfront.search.study.ledger import Asked, Ledger
from stepfront.trainers.evaluation import Evaluation
from tests.search.study.test_ledger import make_ledger, outcomes
from tests.search.study.test_ledger import run as run_ledger

WIDTHS = (0.25, 0.5, 0.75, 1.0)
PLAIN = Stages(12, WIDTHS, False, 6)
GENES = SamplerGenes(PLAIN, ("unipc_2", "dpmpp_2m", "ipndm_3"), ("quadratic", "leading"))
SETTINGS = VariationSettings(population=6)


def run(ledger: Ledger, encoding: Encoding, most: int = 10_000) -> Ledger:
    """Run trials of an encoding whose quality is the levels, late ones worth more; the cost is their sum."""

    def score(asked: Asked) -> Evaluation:
        levels = encoding.unpack(asked.genome)[: encoding.units]
        fid = float(((encoding.highest - levels) * np.linspace(0.5, 2, encoding.units)).sum())
        return Evaluation(fid, float(levels.sum()), 1.0, "made", 100, 0)

    return run_ledger(ledger, most, score)


def climbed(encoding: Encoding, target: Levels, affordable: Callable[[Levels], bool] = lambda levels: True) -> Levels:
    """Return the last of some plans, to which a search climbs that prefers the nearest to a target."""

    def nearest(plans: Sequence[Levels]) -> int:
        return int(np.argmin([np.abs(levels - target).sum() for levels in plans]))

    initial = [Proposal(encoding.pack(encoding.project(np.full(encoding.units, level))), "uniform") for level in (0, 1)]
    sampler = BlockNSGAII(
        *(encoding, SETTINGS, 1, initial, 4, nearest, affordable), neighbours=count_neighbours(encoding), climb=50
    )
    ledger = make_ledger("memory", Path(), sampler=sampler, limits=Limits(trials=3))
    last = run(ledger, encoding).trials[-1]
    assert last.user_attrs["origin"] == "climb"
    levels = encoding.unpack(last.user_attrs[GENOME])
    each = count_neighbours(encoding)
    single = neighbours(np.repeat(levels[None], each, axis=0), np.arange(each), encoding)
    here = np.abs(levels - target).sum()
    assert all(np.abs(other - target).sum() >= here for other in single if affordable(other)), "a change improves it"
    return levels


def test_a_climb_keeps_to_what_is_affordable_and_ends_at_its_bound() -> None:
    target = np.array([3, 1, 3, 2, 3, 3])
    assert climbed(PLAIN, target).tolist() == target.tolist()
    assert climbed(PLAIN, target, lambda levels: bool(levels.sum() <= 11)).sum() == 11


def test_a_climb_changes_solver_and_grid_too() -> None:
    target = GENES.project(np.array([0, 1, 1, 2, 3, 3, 2, 1]))
    assert climbed(GENES, target).tolist() == target.tolist()
    assert GENES.sampler_of(climbed(GENES, target)) == ("ipndm_3", "leading")


@pytest.mark.parametrize(("kind", "encoding"), [("sqlite", PLAIN), ("journal", GENES)])
def test_a_search_that_climbs_ends_with_the_same_trials_after_an_interruption(
    kind: str, encoding: Encoding, tmp_path: Path
) -> None:
    limit = 12

    def ledger(name: str) -> Ledger:
        gap = np.linspace(1, 0.2, 12)[:, None] * (1 - np.array(WIDTHS))

        def costs(plans: Plans) -> Array:
            return np.asarray(plans)[:, : encoding.units].sum(axis=1, keepdims=True).astype(float)

        settings = ScreenSettings(neighbours=20)
        screening = make_screening(
            *(settings, encoding, lambda: PlanFeatures(encoding, gap, (), settings.coding)),
            costs,
        )
        assert screening is not None
        uniform = [Proposal(encoding.pack(encoding.project(np.full(6, level))), "uniform") for level in (3, 0, 1)]
        sampler = BlockNSGAII(
            *(
                encoding,
                SETTINGS,
                1,
                uniform,
                6,
                screening,
                lambda levels: bool(levels[: encoding.units].sum() <= limit),
            ),
            neighbours=20,
            climb=settings.steps_of_climb,
        )
        place = {"sampler": sampler, "limits": Limits(trials=13), "constraints": (f"gflops <= {limit}",)}
        made = make_ledger(kind, tmp_path / name, **place)
        screening.watch(made.progress)
        return made

    whole = run(ledger("whole"), encoding)
    climbs = [trial.number for trial in whole.trials if trial.user_attrs["origin"] == "climb"]
    assert climbs
    assert all(trial.values[1] <= limit for trial in whole.trials[1:])
    run(ledger("cut"), encoding, most=climbs[0]).ask()  # the first climb is in flight when the driver dies
    again = ledger("cut")
    assert again.interrupted == 1
    assert outcomes(run(again, encoding)) == outcomes(whole)
