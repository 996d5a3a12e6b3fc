"""States that workers share through Ray: found on the same node, within the limit, and lost without harm."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from stepfront.search.config import WorkerSettings
from stepfront.search.execution import shared_prefixes as shared_prefixes_module
from stepfront.search.execution.shared_prefixes import NodePrefixes, PrefixIndex, shared_prefixes
from stepfront.search.execution.worker import ListWorker, LoadEvaluator
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.load import load_problem
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.inference.cost import count_width
from tests.search.conftest import tiny_settings
from tests.search.execution.travelling import STATE, Sharing

NODES = ["one", "other"]


def test_the_index_keeps_to_its_limit_a_node_and_lets_the_stalest_go() -> None:
    index = PrefixIndex(30, NODES.copy)
    for node in ("one", "other"):
        for key in "abc":
            index.keep(node, [key, key + "+"], [f"{key} of {node}"], 10)
    assert index.longest("one", ["a", "b", "b+", "x"]) == (2, ["b of one"], 1)
    index.keep("one", ["d"], ["d of one"], 10)
    assert index.longest("one", ["c", "c+"]) is None  # a and b were asked for since
    assert index.longest("one", ["a", "b", "d"]) == (2, ["d of one"], 0)
    assert index.longest("other", ["a", "b", "c", "d"]) == (2, ["c of other"], 0)
    assert index.longest("third", ["a"]) is None
    index.keep("one", ["huge"], ["huge"], 31)
    assert index.longest("one", ["a", "b", "d", "huge"]) is None  # nothing is kept beyond the limit


def test_the_index_names_the_first_of_equals_and_drops_what_is_gone() -> None:
    index = PrefixIndex(30, NODES.copy)
    index.keep("one", ["a", "b"], ["first"], 10)
    index.keep("one", ["b", "c"], ["second"], 10)
    assert index.longest("one", ["a", "b"]) == (1, ["first"], 1)
    for _ in range(2):
        index.drop("one", "a")
    assert index.longest("one", ["a", "b"]) is None
    assert index.longest("one", ["a", "b", "c"]) == (2, ["second"], 1)
    index.keep("one", ["d"], ["d"], 10)
    index.keep("one", ["e"], ["e"], 10)
    assert index.longest("one", ["c"]) == (0, ["second"], 1)  # a gave its room back, once


def test_what_lay_on_a_node_that_is_gone_is_forgotten_when_another_comes() -> None:
    nodes = ["one", "other"]
    index = PrefixIndex(30, nodes.copy)
    for node in nodes:
        index.keep(node, ["a"], [f"of {node}"], 10)
    nodes[0] = "new"
    assert index.longest("one", ["a"]) is not None  # nothing is asked of Ray before there is a new node
    index.keep("new", ["a"], ["of new"], 10)
    assert index.longest("one", ["a"]) is None
    assert index.longest("other", ["a"]) == (0, ["of other"], 0)
    assert index.longest("new", ["a"]) == (0, ["of new"], 0)


@pytest.fixture
def shared(cluster: None) -> Iterator[NodePrefixes]:
    with shared_prefixes(WorkerSettings(count=2)) as made:
        assert made is not None
        yield made


def worker_of(shared: NodePrefixes) -> Any:
    return ray.remote(Sharing).options(num_cpus=0.1).remote(shared)


def found_by(worker: Any, keys: list[str]) -> Any:
    """Return what a worker finds; an offer may be on its way for up to a minute on a busy machine."""
    deadline = time.monotonic() + 60
    while (found := ray.get(worker.longest.remote(keys))) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_one_process_finds_what_another_offered(shared: NodePrefixes) -> None:
    assert shared_prefixes_module._node() in shared_prefixes_module._alive_nodes()
    first, second = worker_of(shared), worker_of(shared)
    assert ray.get(second.longest.remote(["k", "k+"])) is None
    ray.get(first.offer.remote("k"))
    assert found_by(second, ["k+"]) is not None
    at, (x, states, clean, deep) = found_by(second, ["k", "k+", "other"])
    assert at == 1
    assert np.array_equal(x, STATE + 1)
    assert np.array_equal(clean[3], STATE + 2)
    assert states == {}
    assert [np.array_equal(array, STATE + i) for i, array in enumerate(deep, start=3)] == [True, True]
    at, (x, states, clean, deep) = found_by(second, ["k"])
    assert (at, states, clean, deep) == (0, {}, {}, ())
    assert np.array_equal(x, STATE)


def test_states_of_a_worker_that_died_are_missed_and_forgotten(shared: NodePrefixes) -> None:
    first, second = worker_of(shared), worker_of(shared)
    ray.get(first.offer.remote("k"))
    assert found_by(second, ["k"]) is not None
    ray.kill(first)
    deadline = time.monotonic() + 60
    while ray.get(second.longest.remote(["k"])) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ray.get(second.longest.remote(["k"])) is None
    ray.get(second.offer.remote("k"))  # its place is free again
    assert found_by(second, ["k"]) is not None


def test_an_index_that_hangs_is_waited_for_once_and_told_no_more(shared: NodePrefixes) -> None:
    class Hanging(PrefixIndex):
        def longest(self, node: str, keys: object) -> None:
            time.sleep(1000)

    shared._index = ray.remote(Hanging).options(num_cpus=0).remote(1e9, list)
    first = worker_of(shared)
    ray.get(first.__ray_ready__.remote())
    begin = time.monotonic()
    ray.get([first.longest.remote(["k"]), first.offer.remote("k"), *(first.longest.remote(["k"]) for _ in range(20))])
    assert time.monotonic() - begin < 20  # it is two seconds; waited for at each call, it would be 40
    ray.kill(shared._index)


def test_what_the_index_has_not_taken_in_is_no_more_than_a_batch(shared: NodePrefixes) -> None:
    class Slow(PrefixIndex):
        def keep(self, *given: object) -> None:
            time.sleep(1000)

    shared._index, put = ray.remote(Slow).options(num_cpus=0).remote(1e9, list), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "put", lambda states: put.append(states) or "a reference")
        for key in "abc":
            shared.offer([(key, (STATE, {}, {}, ()))])
    assert len(put) == 1
    ray.kill(shared._index)


def test_a_score_goes_on_from_what_another_worker_computed(trained: Path, cluster: None) -> None:
    settings = tiny_settings(trained)
    problem = load_problem(settings)
    costs = {w: count_width(problem.card.network, 1, 8, w) for w in problem.card.network.widths}
    with shared_prefixes(WorkerSettings(count=2)) as shared:
        load = LoadEvaluator(local_parts(problem, costs, 1), shared)
        plans = [Plan(problem.times, (0.25, 0.5, 0.5, 1.0, last, last)) for last in (0.25, 1.0)]
        alone = LoadEvaluator(local_parts(problem, costs, 1))()(plans[1], 32, 0)
        first, second = (ray.remote(ListWorker).options(num_cpus=0.1).remote(load) for _ in range(2))
        ray.get(first.score.remote(plans[0], 32, 0))
        for _ in range(50):
            time.sleep(0.1)  # what was offered is on its way
            found = ray.get(second.score.remote(plans[1], 32, 0))
            if found.calls_saved:
                break
            second = ray.remote(ListWorker).options(num_cpus=0.1).remote(load)
    assert found.calls_saved == 4 * 32
    assert found.fid == alone.fid


def test_the_index_ends_with_what_it_was_for(cluster: None) -> None:
    with shared_prefixes(WorkerSettings(count=2)) as shared:
        assert shared is not None
        assert shared.longest(["k"]) is None
        index = shared._index

    def ask_for_a_minute() -> None:
        # Ray kills an actor soon, not at once: on a busy machine it may still answer.
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            ray.get(index.longest.remote("one", ["k"]), timeout=30)
            time.sleep(0.1)

    with pytest.raises(ray.exceptions.RayActorError):
        ask_for_a_minute()


def test_without_the_index_workers_go_on_alone(shared: NodePrefixes) -> None:
    first = worker_of(shared)
    ray.get(first.offer.remote("k"))
    ray.kill(shared._index)
    begin = time.monotonic()
    for _ in range(20):
        assert ray.get(first.longest.remote(["k"])) is None
        ray.get(first.offer.remote("k"))
    assert time.monotonic() - begin < 20  # it is not waited for again and again


@pytest.mark.parametrize("workers", [WorkerSettings(count=1), WorkerSettings(count=2, prefix_mb=0)])
def test_a_worker_alone_shares_nothing(cluster: None, workers: WorkerSettings) -> None:
    with shared_prefixes(workers) as shared:
        assert shared is None
