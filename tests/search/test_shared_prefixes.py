"""States that workers share through Ray: found on the same node, within the limit, and lost without harm."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest
import ray

from search.config import WorkerSettings
from search.shared_prefixes import NodePrefixes, PrefixIndex, share_prefixes

STATE = np.arange(1000, dtype=np.float32)


def test_the_index_keeps_to_its_limit_a_node_and_lets_the_stalest_go() -> None:
    index = PrefixIndex(limit=30)
    for node in ("one", "other"):
        for key in "abc":
            index.keep(node, key, [f"{key} of {node}"], 10)
    assert index.longest("one", ["a", "b", "x"]) == (1, ["b of one"])
    index.keep("one", "d", ["d of one"], 10)
    assert index.longest("one", ["c"]) is None  # a and b were asked for since
    assert index.longest("one", ["a", "b", "d"]) == (2, ["d of one"])
    assert index.longest("other", ["a", "b", "c", "d"]) == (2, ["c of other"])
    assert index.longest("third", ["a"]) is None


def test_the_index_takes_a_state_once_and_drops_what_is_gone() -> None:
    index = PrefixIndex(limit=30)
    index.keep("one", "a", ["first"], 20)
    index.keep("one", "a", ["second"], 20)
    assert index.longest("one", ["a"]) == (0, ["first"])
    index.drop("one", "a")
    index.drop("one", "a")
    assert index.longest("one", ["a"]) is None
    for key in "bcd":
        index.keep("one", key, [key], 10)
    assert index.longest("one", ["b"]) == (0, ["b"])  # a gave its room back, once


class Worker:
    """A process of its own that offers and looks up."""

    def __init__(self, shared: NodePrefixes) -> None:
        self.shared = shared

    def offer(self, key: str) -> int:
        self.shared.offer([(key, (STATE, None)), (key + "+", (STATE + 1, STATE + 2))])
        return os.getpid()

    def longest(self, keys: list[str]) -> Any:
        found = self.shared.longest(keys)
        return found and (found[0], [None if array is None else array.copy() for array in found[1]])


@pytest.fixture
def shared(cluster: None) -> NodePrefixes:
    made = share_prefixes(WorkerSettings(count=2))
    assert made is not None
    return made


def worker_of(shared: NodePrefixes) -> Any:
    return ray.remote(Worker).options(num_cpus=0.1).remote(shared)


def found_by(worker: Any, keys: list[str]) -> Any:
    for _ in range(100):
        if (found := ray.get(worker.longest.remote(keys))) is not None:
            return found
        time.sleep(0.05)  # an offer is on its way
    return None


def test_one_process_finds_what_another_offered(shared: NodePrefixes) -> None:
    first, second = worker_of(shared), worker_of(shared)
    assert ray.get(second.longest.remote(["k", "k+"])) is None
    ray.get(first.offer.remote("k"))
    assert found_by(second, ["k+"]) is not None
    at, (x, x0) = found_by(second, ["k", "k+", "other"])
    assert at == 1
    assert np.array_equal(x, STATE + 1)
    assert np.array_equal(x0, STATE + 2)
    at, (x, x0) = found_by(second, ["k"])
    assert (at, x0) == (0, None)
    assert np.array_equal(x, STATE)


def test_states_of_a_worker_that_died_are_missed_and_forgotten(shared: NodePrefixes) -> None:
    first, second = worker_of(shared), worker_of(shared)
    ray.get(first.offer.remote("k"))
    assert found_by(second, ["k"]) is not None
    ray.kill(first)
    for _ in range(100):
        if ray.get(second.longest.remote(["k"])) is None:
            break
        time.sleep(0.1)
    assert ray.get(second.longest.remote(["k"])) is None
    ray.get(second.offer.remote("k"))  # its place is free again
    assert found_by(second, ["k"]) is not None


def test_without_the_index_workers_go_on_alone(shared: NodePrefixes) -> None:
    first = worker_of(shared)
    ray.get(first.offer.remote("k"))
    ray.kill(shared._index)
    begin = time.monotonic()
    for _ in range(20):
        assert ray.get(first.longest.remote(["k"])) is None
        ray.get(first.offer.remote("k"))
    assert time.monotonic() - begin < 20  # it is not waited for again and again


def test_a_worker_alone_shares_nothing(cluster: None) -> None:
    assert share_prefixes(WorkerSettings(count=1)) is None
    assert share_prefixes(WorkerSettings(count=2, prefix_mb=0)) is None
