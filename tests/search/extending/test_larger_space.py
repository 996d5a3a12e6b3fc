"""Check that a study continues in a larger space with all plans, scores and numbers that it has, in every storage."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from stepfront.errors import InputError
from stepfront.search.algorithm.nsga2 import BlockNSGAII
from stepfront.search.algorithm.trials import GENOME, Proposal
from stepfront.search.config import VariationSettings, settings_from
from stepfront.search.extending.larger_space import earlier_genomes, genome_map
from stepfront.search.genomes.encodings import SKIP_LEVEL
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.study.budget import Limits
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.optuna_storage import open_storage
from stepfront.trainers.evaluation import Evaluation
from stepfront.trainers.variant import Variant

SMALL = {"space.variants": "[0.5, 1.0]", "sampler.steps": "4"}
LARGER = [
    {"space.variants": "null"},
    {"space.variants": "[0.25, 0.5, 1.0, 1.0r]"},
    {"sampler.steps": "9"},
    {"space.solvers": "[ddim, unipc_2]", "sampler.solver": "ddim"},
    {"space.encoding": "stages", "space.stages": "4"},
]


def make_problem(**changes: str) -> SearchProblem:
    """Return a problem that knows its settings and its network, and has neither images nor weights."""
    given = {
        **{"data.format": "digits", "network.base": "8", "network.multipliers": "[1, 2]"},
        **{"network.widths": "[0.25, 0.5, 1.0]", "space.encoding": "steps", "sampler.solver": "ddim"},
        **SMALL,
        **changes,
    }
    settings = settings_from({}, [f"{key}={value}" for key, value in given.items()])
    card: Any = SimpleNamespace(
        network=settings.network, image_channels=1, resolution=8, groups=None, diffusion=settings.diffusion
    )
    unused: Any = None
    return SearchProblem(settings, unused, unused, card, {}, unused, unused)


def space_of(problem: SearchProblem) -> dict[str, Any]:
    settings = problem.settings
    return {
        "space": settings.space.model_dump(mode="json", exclude_none=True),
        "sampler": settings.sampler.model_dump(mode="json"),
    }


def make_ledger(problem: SearchProblem, storage: Any, trials: int, may_widen: bool = False) -> Ledger:
    encoding = problem.encoding
    full = "".join(encoding.pack(np.full(encoding.units, encoding.highest)))
    return Ledger(
        storage=storage,
        sampler=BlockNSGAII(encoding, VariationSettings(population=6), 1, [Proposal(full, "uniform")]),
        objectives=("fid", "gflops"),
        constraints=(),
        limits=Limits(trials=trials),
        spec={"supernet": "abc", **space_of(problem)},
        full_costs={"gflops": float(problem.settings.sampler.steps)},
        encoding=encoding,
        earlier=earlier_genomes(problem, may_widen),
    )


def run(problem: SearchProblem, ledger: Ledger, most: int = 1000) -> Ledger:
    for _ in range(most):
        if (asked := ledger.ask()) is None:
            break
        widths = problem.plan_of(asked.genome).widths
        cost = float(sum(widths))
        ledger.tell(asked.number, Evaluation(10 / (1 + cost) + widths[0], cost, 1.0, "", 10, 0), "w")
    return ledger


def trials_of(problem: SearchProblem, ledger: Ledger) -> list[tuple[Any, ...]]:
    plans = [problem.plan_of(trial.user_attrs[GENOME]) for trial in ledger.trials]
    return [
        (t.number, p.variants, p.times, p.solver, p.grid, t.values, t.user_attrs["origin"], t.user_attrs["parents"])
        for t, p in zip(ledger.trials, plans, strict=True)
    ]


def storage_in(kind: str, directory: Path) -> Any:
    return InMemoryStorage() if kind == "memory" else open_storage(None if kind == "sqlite" else kind, directory)


@pytest.mark.parametrize("changes", LARGER, ids=lambda changes: " ".join(changes))
def test_all_plans_of_a_space_are_in_a_larger_one(changes: dict[str, str]) -> None:
    before, now = make_problem(), make_problem(**changes)
    mapped, rng = genome_map(now, space_of(before)), np.random.default_rng(0)
    genomes = {before.encoding.pack(before.encoding.project(before.encoding.draw(rng))) for _ in range(60)}
    for genome in genomes:
        one, other = before.plan_of(genome), now.plan_of(mapped(genome))
        assert (one.variants, one.times, one.solver) == (other.variants, other.times, other.solver)
    assert len(set(map(mapped, genomes))) == len(genomes)


def test_a_space_is_larger_than_itself_and_changes_no_genome() -> None:
    problem = make_problem()
    mapped = genome_map(problem, space_of(problem))
    assert [mapped(genome) for genome in ("0101", "1-1-", "1---")] == ["0101", "1-1-", "1---"]


@pytest.mark.parametrize(
    ("before", "changes", "reason"),
    [
        ({}, {"space.variants": "[0.25, 1.0]"}, r"possible: space.variants with 0.50"),
        ({"space.skip": "false"}, {"space.skip": "false", "sampler.steps": "5"}, "space.skip=even alone"),
        (
            {"space.encoding": "stages", "space.stages": "2"},
            {"space.encoding": "stages", "space.stages": "2", "sampler.steps": "8"},
            "possible: space.stages=4, so that a stage is as long",
        ),
        ({}, {"space.encoding": "stages", "space.stages": "2"}, "the stages so far or a multiple"),
    ],
)
def test_a_space_that_lacks_a_plan_says_so_in_one_line(
    before: dict[str, str], changes: dict[str, str], reason: str
) -> None:
    small, now = make_problem(**before), make_problem(**changes)
    mapped = genome_map(now, space_of(small))
    genome = small.encoding.pack(small.encoding.project(np.array([0, 1, 0, 1][: small.encoding.units])))
    with pytest.raises(InputError, match=reason) as refused:
        mapped(genome)
    assert "\n" not in str(refused.value)


def test_a_plan_that_skips_steps_is_none_of_a_space_without_skips() -> None:
    stages = {"space.encoding": "stages", "space.stages": "4"}
    small, now = make_problem(**stages, **{"space.skip": "even"}), make_problem(**stages, **{"space.skip": "false"})
    genome = small.encoding.pack(small.encoding.project(np.array([0, SKIP_LEVEL, 0, 1])))
    with pytest.raises(InputError, match=r"possible: a space\.skip with which plans may skip steps"):
        genome_map(now, space_of(small))(genome)


@pytest.mark.parametrize("kind", ["sqlite", "journal", "memory"])
def test_a_study_keeps_its_trials_in_a_larger_space_and_searches_it(kind: str, tmp_path: Path) -> None:
    small, large = make_problem(), make_problem(**{"space.variants": "null", "sampler.steps": "7"})
    storage = storage_in(kind, tmp_path)
    first = trials_of(small, run(small, make_ledger(small, storage, 12)))
    ledger = make_ledger(large, storage, 40, may_widen=True)
    assert ledger.enter_space()
    assert trials_of(large, ledger) == first
    run(large, ledger)
    assert trials_of(large, ledger)[:12] == first
    new = [large.plan_of(trial.user_attrs[GENOME]) for trial in ledger.trials[12:]]
    assert len({trial.user_attrs[GENOME] for trial in ledger.trials}) == 40, "no plan twice, earlier ones included"
    assert any(Variant(0.25) in plan.variants for plan in new)
    assert max(len(plan.variants) for plan in new) == 7
    assert ledger.progress.reference_point() == [pytest.approx(1.1 * first[0][5][0]), pytest.approx(1.05 * 7)]
    assert {parent for trial in ledger.trials[12:] for parent in trial.user_attrs["parents"]} & set(range(12))
    # The last trials may descend from the first: a later call reads them all as they are now.
    again = make_ledger(large, storage, 40)
    assert not again.enter_space()
    assert trials_of(large, again) == trials_of(large, ledger)


@pytest.mark.parametrize("stop", [0, 1, 9])
def test_a_study_that_is_killed_while_it_is_extended_ends_with_the_same_trials(stop: int, tmp_path: Path) -> None:
    small, large = make_problem(), make_problem(**{"sampler.steps": "7"})
    ends = []
    for name in ("whole", "cut"):
        storage = open_storage(None, tmp_path / name)
        run(small, make_ledger(small, storage, 8))
        make_ledger(small, storage, 9).ask()  # in flight when the driver died
        make_ledger(large, storage, 30, may_widen=True)  # killed before the study has the larger space
        assert (
            trials_of(small, make_ledger(small, storage, 9))[:8]
            == trials_of(large, make_ledger(large, storage, 30, may_widen=True))[:8]
        )
        ledger = make_ledger(large, storage, 30, may_widen=True)
        with pytest.raises(InputError, match="continue it first: stepfront resume"):
            ledger.add_fit(Proposal("0" * 7, "fit", (0,), "digest"), Evaluation(1, 1, 1, "", 1, 0))
        ledger.enter_space()
        if name == "cut":
            run(large, ledger, most=stop)
            ledger.ask()
            ledger = make_ledger(large, open_storage(None, tmp_path / name), 30)
            assert not ledger.enter_space()
        ends.append(trials_of(large, run(large, ledger)))
    assert ends[0] == ends[1]
    assert ends[0][8][1] != ends[0][7][1]


def test_a_study_is_extended_twice_and_its_first_trials_are_read_through_both(tmp_path: Path) -> None:
    spaces = [
        make_problem(),
        make_problem(**{"space.variants": "null"}),
        make_problem(**{"space.variants": "null", "sampler.steps": "6"}),
    ]
    storage, read = InMemoryStorage(), []
    for number, problem in enumerate(spaces):
        ledger = make_ledger(problem, storage, 8 * (number + 1), may_widen=True)
        assert ledger.enter_space() is (number > 0)
        read.append(trials_of(problem, run(problem, ledger)))
    assert read[2][:16] == read[1]
    assert read[1][:8] == read[0]
    assert [space["below"] for space in ledger.earlier_spaces] == [8, 16]


def test_other_scores_and_unasked_spaces_are_refused(tmp_path: Path) -> None:
    small, large = make_problem(), make_problem(**{"space.variants": "null"})
    storage = InMemoryStorage()
    run(small, make_ledger(small, storage, 4))
    with pytest.raises(InputError, match="`stepfront extend SEARCH --set` continues in a larger space"):
        make_ledger(large, storage, 8)
    other = make_problem(**{"sampler.solver": "unipc_2"})
    with pytest.raises(InputError, match="this search was begun with sampler"):
        make_ledger(other, storage, 8, may_widen=True)


def test_the_same_space_gives_the_same_trials_as_more_budget_alone() -> None:
    problem, ends = make_problem(), []
    for may_widen in (False, True):
        storage = InMemoryStorage()
        run(problem, make_ledger(problem, storage, 8))
        ledger = make_ledger(problem, storage, 20, may_widen)
        assert not ledger.enter_space()
        ends.append(trials_of(problem, run(problem, ledger)))
    assert ends[0] == ends[1]
