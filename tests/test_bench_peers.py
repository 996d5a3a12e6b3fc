"""The surrogate table and the peers that are compared on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import outside_peers, peers
from benchmarks.fit_surrogate import fit
from benchmarks.peer_list import PEERS, Peer
from benchmarks.peer_methods import additive_model, coarse_to_fine, gap_optima, greedy_by_fid, greedy_by_gap
from benchmarks.peers import EARLIER_SCREEN, Result, Truth, page, paired, read_table, row, run_peers, table_paths
from benchmarks.plan_table import EnumeratedTable, read_enumerated_table, true_front, write_enumerated_table
from benchmarks.surrogate_table import (
    TABLES,
    SurrogateTable,
    best_known_front,
    read_surrogate_table,
    write_surrogate_table,
)
from stepfront.arrays import Array
from stepfront.search.initial_plans.plan_kinds import PlanSource, make_initial_plans
from stepfront.search.pareto import front_indices


def made_table(units: int = 4, pairwise: float = 0.1) -> SurrogateTable:
    """Return a table of `units` genes of three widths, with random terms."""
    rng = np.random.default_rng(0)
    falling = np.array([0.6, 0.2, 0.0])
    gap = falling * rng.uniform(0.1, 1.0, (units, 1))
    pairs = np.zeros((units, units, 3, 3))
    pairs[np.triu_indices(units, 1)] = pairwise * rng.normal(size=(units * (units - 1) // 2, 3, 3))
    return SurrogateTable(
        (0.25, 0.5, 1.0), units, np.tile([0.1, 0.3, 1.0], (units, 1)), gap, np.linspace(-2, 2, units),
        {"images": 8, "held-out error": {}}, 1.5, gap * rng.uniform(0.5, 1.5, gap.shape), pairs,
    )  # fmt: skip


def test_every_plan_is_scored_in_the_order_of_its_genome() -> None:
    table = made_table()
    every = table.every()
    assert every.shape == (81, 2)
    for index, levels in enumerate(np.ndindex(3, 3, 3, 3)):
        assert table(np.array(levels)) == pytest.approx(tuple(every[index]), rel=1e-12)


def test_a_score_is_the_sum_of_its_terms() -> None:
    table = made_table(units=2)
    fid, gflops = table(np.array([1, 2]))
    assert np.log(fid) == pytest.approx(1.5 + table.main[0, 1] + table.main[1, 2] + table.pairs[0, 1, 1, 2])
    assert gflops == pytest.approx(1.3)


def test_the_true_front_is_that_of_all_plans() -> None:
    every = made_table().every()
    np.testing.assert_allclose(true_front(every), every[front_indices(every)])


@pytest.mark.parametrize(
    "path", table_paths(["digits-6", "fashion-6", "digits-10", "digits-20"]), ids=lambda path: path.stem
)
def test_nothing_is_above_or_below_the_front_itself(path: Path) -> None:
    truth = Truth.of(read_table(path))
    assert truth.excess(truth.front) == 0
    costs, fids = truth.front[:, 1], truth.front[:, 0]
    assert (np.diff(costs) > 1e-9).all(), "two plans of one cost"
    assert (np.diff(fids) < 0).all()


def test_the_best_known_front_is_the_true_one_where_all_plans_can_be_scored() -> None:
    table = read_surrogate_table(TABLES / "digits-10.json")
    starts = np.random.default_rng(0).integers(0, 4, (20, table.units))
    np.testing.assert_allclose(table.scores(best_known_front(table, starts)), true_front(table.every()))


def test_no_change_of_two_genes_improves_a_stored_front() -> None:
    table = read_surrogate_table(TABLES / "digits-20.json")
    assert table.front_plans is not None
    front, rng = table.front(), np.random.default_rng(0)
    near = np.repeat(table.front_plans, 200, axis=0)
    for _ in range(2):
        near[np.arange(len(near)), rng.integers(0, table.units, len(near))] = rng.integers(0, 4, len(near))
    np.testing.assert_array_equal(true_front(np.vstack([front, table.scores(near)])), front)
    with pytest.raises(ValueError, match="too many to score them all"):
        replace(table, front_plans=None).front()


def test_a_table_of_measured_plans_gives_each_its_fid(tmp_path: Path) -> None:
    made = made_table()
    fids = made.every()[:, 0]
    shared = (made.widths, made.steps, made.unit_gflops, made.gap, made.half_log_snr, made.about)
    write_enumerated_table(EnumeratedTable(*shared, fids, np.zeros(81)), tmp_path / "table.json")
    table = read_enumerated_table(tmp_path / "table.json")
    np.testing.assert_allclose(table.every(), made.every(), rtol=1e-5)
    assert table(np.array([1, 0, 2, 1])) == pytest.approx(made(np.array([1, 0, 2, 1])), rel=1e-5)
    assert Truth.of(table).volume == pytest.approx(Truth.of(made).volume, rel=1e-4)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = made_table()
    write_surrogate_table(table, tmp_path / "table.json")
    np.testing.assert_allclose(read_surrogate_table(tmp_path / "table.json").every(), table.every(), rtol=1e-4)


def test_a_fit_recovers_an_additive_and_pairwise_model() -> None:
    table = made_table()
    plans = np.array(list(np.ndindex(3, 3, 3, 3)))
    constant, main, pairs = fit(plans, np.log(table.every()[:, 0]), 3, (1e-6, 1e-6))
    between = np.zeros_like(table.pairs)
    between[np.triu_indices(4, 1)] = pairs
    found = replace(table, constant=constant, main=main, pairs=between)
    np.testing.assert_allclose(found.every()[:, 0], table.every()[:, 0], rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 65])
def test_coarse_to_fine_has_each_index_once_and_both_ends_first(count: int) -> None:
    order = coarse_to_fine(count)
    assert sorted(order) == list(range(count))
    assert order[:2] == [0, count - 1][: len(order)]


def test_peers_that_follow_the_gap_find_the_front_where_fid_is_the_gap() -> None:
    table = made_table(pairwise=0.0)
    table = replace(table, main=table.gap)
    truth = Truth.of(table)
    source = table.plan_source(0)
    assert truth.shares(gap_optima(source, table, 81, 0))[-1] == pytest.approx(1.0)
    assert truth.excess(gap_optima(source, table, 81, 0)) == pytest.approx(0.0, abs=1e-9)
    assert len(greedy_by_gap(source, table, 81, 0)) == 1 + 2 * 4
    assert truth.shares(greedy_by_gap(source, table, 81, 0))[-1] > 0.95


def test_the_additive_model_finds_the_front_of_an_additive_table() -> None:
    table = made_table(units=6, pairwise=0.0)
    found = additive_model(table.plan_source(0), table, 60, 0, {"random": 15})
    assert len(np.unique(found, axis=0)) >= 50  # no plan twice; some differ and score alike
    assert Truth.of(table).shares(found)[-1] > 0.999


def test_greedy_narrowing_by_fid_ends_at_the_narrowest_plan() -> None:
    table = made_table()
    scores = greedy_by_fid(table.plan_source(0), table, 1000, 0)
    assert scores[0].tolist() == pytest.approx(table(np.full(4, 2)))
    assert scores[-1].tolist() == pytest.approx(table(np.zeros(4, dtype=np.int64)))


def test_peers_have_names_of_their_own() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)


OUTSIDE: dict[str, Callable[..., Array]] = {
    "botorch": outside_peers.botorch_qlognehvi,
    "smac": outside_peers.smac_parego,
    "syne-tune": outside_peers.syne_tune_evolution,
}


@pytest.mark.parametrize("package", OUTSIDE)
def test_peers_of_other_packages_begin_with_the_initial_plans_and_keep_to_the_budget(package: str) -> None:
    if outside_peers.installed_version(package) is None:
        pytest.skip(f"{package} is not installed (the extra `peers`)")
    table, initial = made_table(), {"uniform": 3, "gap": 5}
    source = table.plan_source(0)
    plans = [source.encoding.unpack(proposal.genome) for proposal in make_initial_plans(initial, source)]
    scores = OUTSIDE[package](source, table, len(plans) + 3, 0, initial)
    assert scores.shape == (len(plans) + 3, 2)
    np.testing.assert_allclose(scores[: len(plans)], [table(levels) for levels in plans])
    every = table.every()
    assert all(np.isclose(every, score).all(axis=1).any() for score in scores)


def test_peers_that_are_not_installed_are_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_peers, "installed_version", lambda package: "1.0" if package == "smac" else None)
    ran: list[str] = []

    def peer(name: str, package: str) -> Peer:
        def run(source: PlanSource, score: SurrogateTable, budget: int, seed: int) -> Array:
            ran.append(name)
            return np.array([score(np.full(4, 2))])

        return Peer(name, run, 1, 1, package)

    monkeypatch.setattr(peers, "PEERS", (peer("here", ""), peer("forest", "smac"), peer("process", "botorch")))
    assert run_peers(made_table(), b"", 10, "", tmp_path, kept_alone=True) == {}
    assert set(run_peers(made_table(), b"", 10, "", tmp_path)) == set(ran) == {"here", "forest"}
    assert set(run_peers(made_table(), b"", 10, "", tmp_path, kept_alone=True)) == {"here", "forest"}
    assert len(ran) == 2
    text = page([], "", "2026-01-01")
    assert "Not installed, so not measured: BoTorch, Syne Tune (" in text
    assert "SMAC3 1.0" in text


def test_a_row_counts_evaluations_and_the_network_flops_of_its_networks() -> None:
    table = made_table()
    truth = Truth.of(table)
    dear, all_plans = table(np.full(4, 2)), table.every()
    images = 8
    found = row(peers.PEERS[0], [Result(all_plans, 0.001)], truth, images)
    first = int(np.argmax(truth.shares(all_plans) >= 0.99)) + 1
    assert found["to 99 %"] == str(first)
    assert found["network TFLOPs to 99 %"] == f"{all_plans[:first, 1].sum() * images / 1000:.2f}"
    ends_early = row(peers.PEERS[0], [Result(np.array([dear] * 3), 0.001)], truth, images)
    assert ends_early["to 99 %"] == "> 3"
    assert ends_early["network TFLOPs to 99 %"] == f"> {3 * dear[1] * images / 1000:.2f}"
    assert [cell for name, cell in ends_early.items() if name.startswith("... at")] == ["-"]


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.json")), ids=lambda path: path.stem)
def test_published_tables_say_their_error_and_rank_full_width_above_the_narrowest(path: Path) -> None:
    table = read_surrogate_table(path)
    errors = table.about["held-out error"]["all"]
    assert errors["r2"] > 0.9
    assert errors["plans"] >= 50
    units = table.encoding.units
    assert table(np.full(units, table.encoding.highest))[0] < table(np.zeros(units, dtype=np.int64))[0]


def test_screenings_are_compared_seed_by_seed() -> None:
    truth = Truth.of(made_table())
    front, far = truth.front, np.array([[truth.reference[0], truth.front[0, 1]]])
    results = {
        EARLIER_SCREEN: [Result(far, 0.0), Result(front, 0.0), Result(far, 0.0)],
        "ours, default": [Result(front, 0.0), Result(front, 0.0)],
        "ours, one seed": [Result(front, 0.0)],
        "another": [Result(front, 0.0)] * 3,
    }
    rows = paired(results, truth, 100)
    gain = truth.excess(far)
    assert rows["method"].tolist() == ["ours, default"]
    assert rows["seeds nearer"].tolist() == ["1 of 2"]
    assert rows["mean gain"].tolist() == [f"{50 * gain:.1f} %"]
    assert rows["deviation"].tolist() == [f"{100 * gain / 2**0.5:.1f} %"]
