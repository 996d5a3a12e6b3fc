"""What other tools see of a study: named objectives, and parameters that describe each plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances

from stepfront.search.algorithm.trials import GENOME
from stepfront.search.genomes.encodings import Stages
from stepfront.search.objectives import Objectives
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.plan_parameters import (
    OWN_SCALE,
    REUSED,
    SHALLOW,
    STEPS,
    UNGUIDED,
    WIDTH_NAMES,
    plan_parameters,
    trial_parameters,
)
from tests.search.study.test_ledger import ENCODING, make_ledger, outcomes, run


def test_a_plan_is_described_by_its_steps_and_the_mean_width_of_each_quarter() -> None:
    found = plan_parameters([0.25] * 5 + [0.5] * 5 + [0.0] * 5 + [1.0] * 5)
    assert found == pytest.approx(dict(zip((STEPS, *WIDTH_NAMES), (15, 0.25, 0.5, 0.0, 1.0), strict=True)))
    # A step in two quarters counts in both by its parts: of three steps, a quarter is three fourths of one.
    assert list(plan_parameters([0.0, 0.6, 1.0]).values()) == pytest.approx([2, 0.0, 0.4, 0.8 * 0.5 / 0.75 + 0.2, 1.0])


def test_the_quarters_have_the_mean_of_the_whole_plan() -> None:
    for steps in (1, 2, 3, 5, 20, 1001):
        widths = np.random.default_rng(steps).choice([0.25, 0.5, 1.0], steps)
        quarters = [plan_parameters(widths.tolist())[name] for name in WIDTH_NAMES]
        assert np.mean(quarters) == pytest.approx(widths.mean())


def test_a_range_holds_every_plan_of_the_space() -> None:
    encoding = Stages(8, (0.25, 1.0), True, 4)
    for genome in ("---0", "1111", "0101"):
        found = trial_parameters(encoding, genome)
        assert all(found["distributions"][name]._contains(value) for name, value in found["params"].items())


def test_marks_are_described_by_their_share_of_the_steps() -> None:
    encoding = Stages(8, (0.5, 1.0, 1.0, 1.0), True, 8, ("", "r", "u", ""))
    found = trial_parameters(encoding, "3112-033")
    assert encoding.step_variants(encoding.unpack("3112-033"))[1].reuse
    params = found["params"]
    assert params[STEPS] == 7
    assert (params[REUSED], params[UNGUIDED]) == (2 / 8, 1 / 8)
    assert [params[name] for name in WIDTH_NAMES] == [1.0, 1.0, 0.25, 1.0]
    assert set(found["distributions"]) == set(params)
    assert all(found["distributions"][name]._contains(value) for name, value in params.items())
    reusing = Stages(8, (1.0, 1.0), False, 8, ("r", ""))
    plain = trial_parameters(reusing, "11111111")["params"]
    assert plain[REUSED] == 0.0, "every trial of a search has the same parameters"
    assert UNGUIDED not in plain
    deep = trial_parameters(Stages(8, (1.0, 1.0), False, 8, ("d2", "")), "00110011")["params"]
    assert deep[SHALLOW] == 0.5
    scaled = trial_parameters(Stages(8, (1.0, 1.0, 1.0), False, 8, ("u", "g3", "")), "00112211")["params"]
    assert (scaled[OWN_SCALE], scaled[UNGUIDED]) == (4 / 8, 2 / 8)


@pytest.mark.parametrize("kind", ["sqlite", "journal", "memory"])
def test_equal_seeds_give_equal_searches_with_and_without_parameters(kind: str, tmp_path: Path) -> None:
    plain = run(make_ledger(kind, tmp_path / "plain"))
    described = run(make_ledger(kind, tmp_path / "described", encoding=ENCODING))
    assert outcomes(described) == outcomes(plain)
    assert not any(trial.params for trial in plain.trials)
    stored = described.study.get_trials()
    assert [trial.params for trial in stored] == [
        plan_parameters(ENCODING.step_widths(ENCODING.unpack(trial.user_attrs[GENOME]))) for trial in stored
    ]


def test_a_study_that_began_without_parameters_continues_with_them(tmp_path: Path) -> None:
    whole = run(make_ledger("sqlite", tmp_path / "whole"))
    run(make_ledger("sqlite", tmp_path / "old"), most=12)
    again = run(make_ledger("sqlite", tmp_path / "old", encoding=ENCODING))
    assert outcomes(again) == outcomes(whole)
    assert [bool(trial.params) for trial in again.trials] == [False] * 12 + [True] * 18


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Return a finished search whose trials are described."""
    return run(make_ledger("sqlite", tmp_path_factory.mktemp("study"), encoding=ENCODING))


def test_the_objectives_have_names(searched: Ledger) -> None:
    assert searched.study.metric_names == ["fid", "gflops"]
    names = Objectives(("fid", "gflops", "sharpness"), frozenset({"sharpness"}))
    ledger = make_ledger("memory", Path(), objectives=names, full_costs={"gflops": 30.0})
    assert ledger.study.metric_names == ["fid", "gflops", "-sharpness"]  # the study minimises its negative


def test_optuna_computes_importances_slices_and_ranks(searched: Ledger) -> None:
    study = searched.study
    evaluator = MeanDecreaseImpurityImportanceEvaluator(n_trees=8, seed=0)
    found = get_param_importances(study, evaluator=evaluator, target=lambda trial: trial.values[1])
    # The cost is the sum of all levels, so every quarter matters; no step is skipped, so their number does not.
    assert set(found) - {STEPS} == set(WIDTH_NAMES)
    assert sum(found.values()) == pytest.approx(1)
    assert min(found[name] for name in WIDTH_NAMES) > found.get(STEPS, 0.0) == 0.0
    for draw in (optuna.visualization.plot_slice, optuna.visualization.plot_rank):
        figure = draw(study, params=list(WIDTH_NAMES[:2]), target=lambda trial: trial.values[0], target_name="fid")
        assert len(figure.data) >= 2
    assert optuna.visualization.plot_pareto_front(study).layout.xaxis.title.text == "fid"
