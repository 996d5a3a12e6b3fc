"""States that the workers of a node share: a plan goes on from the longest prefix that any of them has computed.

The states lie in Ray's object store, so they end with the worker that made them, and all with the search; one small
actor knows which there are.  They do not cross nodes: another processor may round otherwise, and scores are to stay the
same to the bit.  A search without its index, or without a state that the index names, computes what it misses.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from stepfront.search.config import WorkerSettings
from stepfront.search.execution.placement import worker_count

if TYPE_CHECKING:
    from stepfront.trainers.inference.prefix_cache import Arrays

_PATIENCE = 2.0
"""Seconds after which an answer is not waited for."""

_PAUSE = 60.0
"""Seconds for which an index that did not answer is neither asked nor told."""


class PrefixIndex:
    """Which states lie on each node, `limit` bytes of them at most: those of one plan and batch come and go together,
    and the ones asked for least lately go first.

    Made an actor by `shared_prefixes`.  What lay on a node that is gone is forgotten when another comes.
    """

    def __init__(self, limit: float, alive: Callable[[], Collection[str]]) -> None:
        self._limit, self._alive = limit, alive
        self._where: dict[tuple[str, str], tuple[int, int]] = {}  # node, key -> parcel, place in it
        self._parcels: dict[str, OrderedDict[int, tuple[Any, Sequence[str], int]]] = {}
        self._bytes: Counter[str] = Counter()
        self._made = 0

    def longest(self, node: str, keys: Sequence[str]) -> tuple[int, list[Any], int] | None:
        """Index in `keys` (shortest prefix first) of the longest prefix that is there, the reference to the states that
        it lies among (in a list, so that they stay where they are), and its place among them."""
        found = None
        for index, key in enumerate(keys):
            if (node, key) in self._where:
                parcel, place = self._where[node, key]
                self._parcels[node].move_to_end(parcel)
                found = index, [self._parcels[node][parcel][0]], place
        return found

    def keep(self, node: str, keys: Sequence[str], reference: list[Any], size: int) -> None:
        """Takes in states of so many bytes, and lets the stalest go until all fit."""
        self._made += 1
        if node not in self._parcels:
            self._forget_gone_nodes()
        self._parcels.setdefault(node, OrderedDict())[self._made] = (reference[0], keys, size)
        self._bytes[node] += size
        for place, key in enumerate(keys):
            self._where.setdefault((node, key), (self._made, place))
        while self._bytes[node] > self._limit:
            self._drop(node, next(iter(self._parcels[node])))

    def drop(self, node: str, key: str) -> None:
        """Lets a state go that is no longer to be had, and those that it lay among."""
        if (node, key) in self._where:
            self._drop(node, self._where[node, key][0])

    def _forget_gone_nodes(self) -> None:
        for gone in self._parcels.keys() - set(self._alive()):
            for parcel in list(self._parcels[gone]):
                self._drop(gone, parcel)
            del self._parcels[gone], self._bytes[gone]

    def _drop(self, node: str, parcel: int) -> None:
        _, keys, size = self._parcels[node].pop(parcel)
        self._bytes[node] -= size
        for key in keys:
            if self._where.get((node, key), (0, 0))[0] == parcel:
                del self._where[node, key]


class NodePrefixes:
    """A worker's access to the states of its node; implements `trainers.prefixes.Shared`."""

    def __init__(self, index: Any) -> None:
        self._index, self._silent_until = index, -math.inf
        self._told: Any = None

    def longest(self, keys: Sequence[str]) -> tuple[int, Arrays] | None:
        """Index in `keys` and state of the longest prefix on this node; None where that can't be had."""
        if time.monotonic() < self._silent_until:
            return None
        try:
            found = ray.get(self._index.longest.remote(_node(), list(keys)), timeout=_PATIENCE)
        except (ray.exceptions.RayError, TimeoutError) as error:
            self._pause(error)
            return None
        if found is None:
            return None
        at, (reference,), place = found
        try:
            return at, ray.get(reference, timeout=_PATIENCE)[place]
        except (ray.exceptions.RayError, TimeoutError):  # the worker that made it is gone, for one
            self._index.drop.remote(_node(), keys[at])
            return None

    def offer(self, states: Sequence[tuple[str, Arrays]]) -> None:
        """Gives states to the other workers of this node."""
        # What the index has not yet taken in is under nobody's limit, so there is never more of it than one batch's.
        if time.monotonic() < self._silent_until or not self._has_taken():
            return
        size = sum(array.nbytes for _, arrays in states for array in arrays if array is not None)
        try:
            reference = ray.put([arrays for _, arrays in states])
        except ray.exceptions.RayError as error:  # a full object store, for one: the evaluation is worth more
            self._pause(error)
            return
        self._told = self._index.keep.remote(_node(), [key for key, _ in states], [reference], size)

    def _has_taken(self) -> bool:
        return self._told is None or bool(ray.wait([self._told], timeout=0)[0])

    def _pause(self, error: Exception) -> None:
        gone = isinstance(error, ray.exceptions.RayActorError)
        self._silent_until = math.inf if gone else time.monotonic() + _PAUSE


@contextlib.contextmanager
def shared_prefixes(workers: WorkerSettings) -> Iterator[NodePrefixes | None]:
    """What several workers share while it lasts; None where there is one alone, or nothing is kept.  Needs a
    `ray_session`."""
    several = workers.count != 1 and (workers.address is not None or worker_count(workers) > 1)
    if not several or not workers.prefix_mb:
        yield None
        return
    here = NodeAffinitySchedulingStrategy(_node(), soft=True)
    index = (
        ray.remote(PrefixIndex)
        .options(num_cpus=0, scheduling_strategy=here)
        .remote(workers.prefix_mb * 2**20, _alive_nodes)
    )
    try:
        yield NodePrefixes(index)
    finally:
        with contextlib.suppress(Exception):  # Ray itself may have ended
            ray.kill(index)


def _alive_nodes() -> list[str]:
    return [str(node["NodeID"]) for node in ray.nodes() if node["Alive"]]


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())
