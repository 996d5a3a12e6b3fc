"""The engine of a search: chosen once, kept, given to all workers, part of what its scores depend on."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.search.config import settings_from
from stepfront.search.driver.open_ledger import open_ledger
from stepfront.search.execution.worker import LoadEvaluator
from stepfront.search.problem.costs import load_or_measure_costs, read_costs
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.load import load_problem
from stepfront.search.records.run_directory import COSTS_FILE, FACTS_FILE
from stepfront.tables.schema import PART_SECONDS, TRIALS
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluator import Evaluator
from stepfront.trainers.inference.cost import WidthCost
from stepfront.trainers.inference.engine import PLAIN, Engine
from tests.search.conftest import TINY, do_search, tiny_settings

CHANNELS_LAST = Engine(name="channels_last")


@pytest.fixture(scope="module")
def searched(trained: Path) -> Path:
    supernet = f"supernet={trained / 'tiny' / 'supernet'}"
    return do_search(trained, "name=engines", supernet, "workers.engine=channels_last")


def test_the_measurement_is_kept_beside_the_search(searched: Path) -> None:
    kept = read_json(searched / COSTS_FILE, "costs")
    assert [one["engine"]["name"] for one in kept["engines"]] == ["plain", "channels_last"]
    assert all(len(one["latency_ms"]) == 3 and one["difference"] <= 1e-4 for one in kept["engines"])
    costs = read_costs(searched)
    assert {cost.engine for cost in costs.values()} == {CHANNELS_LAST}
    assert [cost.latency_ms for cost in costs.values()] == kept["engines"][1]["latency_ms"]
    assert read_json(searched / FACTS_FILE, "search")["engine"] == "channels_last"


def test_all_workers_score_with_the_same_engine_to_the_bit(searched: Path, trained: Path) -> None:
    settings = tiny_settings(trained, "name=engines", f"supernet={trained / 'tiny' / 'supernet'}")
    parts = local_parts(load_problem(settings), read_costs(searched), 1)
    assert parts.engine == CHANNELS_LAST
    trials = pd.read_parquet(searched / TRIALS)
    evaluate = Evaluator(parts)
    for _, row in trials.sort_values("trial", ascending=False).iterrows():  # in another order, by another process
        plan = Plan(tuple(row.times), tuple(row.widths), row.solver)
        assert evaluate(plan, int(row.images), int(row.noise_seed)).fid == row.fid


def test_prefixes_save_calls_and_every_call_is_counted(searched: Path) -> None:
    trials = pd.read_parquet(searched / TRIALS)
    assert ((trials.calls + trials.calls_saved) == 6 * trials.images).all()
    assert trials.calls_saved.sum() > 0  # nine plans over three stages and three widths, on two workers
    assert (trials.gflops_saved[trials.calls_saved == 0] == 0).all()
    assert (trials.gflops_saved <= trials.gflops * trials.images + 1e-9).all()
    facts = read_json(searched / FACTS_FILE, "search")
    assert facts["network_calls"] == trials.calls.sum()
    assert facts["network_calls_saved"] == trials.calls_saved.sum()


def test_the_table_says_what_each_evaluation_took_and_where(searched: Path) -> None:
    trials = pd.read_parquet(searched / TRIALS)
    parts = trials[list(PART_SECONDS)]
    assert (parts > 0).all(axis=None)
    assert (parts.sum(axis=1) <= trials.seconds).all()
    kept = trials[trials.prefix_states > 0]
    assert len(kept)
    assert (kept.prefix_mb <= 256).all()
    assert set(trials.device) == {read_costs(searched)[1.0].device}


def test_scores_of_another_engine_are_refused(searched: Path, trained: Path) -> None:
    settings = tiny_settings(trained, "name=engines", f"supernet={trained / 'tiny' / 'supernet'}")
    problem, costs = load_problem(settings), read_costs(searched)
    plain = {width: cost.model_copy(update={"engine": PLAIN}) for width, cost in costs.items()}
    with pytest.raises(InputError, match="begun with engine 'channels_last', not None"):
        open_ledger(problem, plain, searched)


def test_costs_of_before_there_were_engines_are_those_of_the_plain_one(searched: Path, tmp_path: Path) -> None:
    rows = [cost.model_dump(mode="json", exclude={"engine"}) for cost in read_costs(searched).values()]
    write_json(tmp_path / COSTS_FILE, {"widths": rows})
    costs = read_costs(tmp_path)
    assert {cost.engine for cost in costs.values()} == {PLAIN}
    assert all(isinstance(cost, WidthCost) for cost in costs.values())


def test_a_driver_without_the_workers_device_runs_the_plain_engine(searched: Path, trained: Path) -> None:
    supernet = f"supernet={trained / 'tiny' / 'supernet'}"
    settings = tiny_settings(trained, "name=engines", supernet, "workers.gpus=0.5")
    assert local_parts(load_problem(settings), read_costs(searched), 0).engine == PLAIN


def test_a_forced_precision_beyond_the_tolerance_is_refused_before_anything_is_searched(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(fresh, "workers.precision=bfloat16")
    monkeypatch.setattr("stepfront.search.problem.worker_measurements.choose_engine", refuse)
    with pytest.raises(InputError, match=r"^workers\.precision bfloat16: changes"):
        load_or_measure_costs(load_problem(settings), settings.search_directory)
    assert not (settings.search_directory / COSTS_FILE).exists()


def refuse(*given: object) -> None:
    raise InputError("workers.precision bfloat16: changes the network's prediction")


def test_the_root_of_the_reference_travels_to_the_workers(searched: Path, trained: Path) -> None:
    settings = tiny_settings(trained, "name=engines", f"supernet={trained / 'tiny' / 'supernet'}")
    load = LoadEvaluator(local_parts(load_problem(settings), read_costs(searched), 1))
    arrived = pickle.loads(pickle.dumps(load)).parts.reference
    assert np.array_equal(arrived.__dict__["triangle"], load.parts.reference.triangle)


def test_unknown_engines_are_refused_with_what_is_possible() -> None:
    possible = "'auto', 'plain', 'channels_last', 'winograd', 'compiled', 'cuda_graphs' or 'compiled_cuda_graphs'"
    with pytest.raises(InputError, match=rf"workers\.engine: .*{possible}"):
        settings_from(TINY, ["workers.engine=fastest"])
