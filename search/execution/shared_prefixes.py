"""Share prefix states between the workers of a node: a plan continues from the longest prefix that any has computed.

The states are in Ray's object store, so they end with the worker that made them, and all with the search.  One small
actor indexes them.  States do not cross nodes: another processor may round differently, and scores must stay equal to
the bit.  A worker that can't reach the index, or a state in it, computes what is missing.
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
"""Seconds to wait for an answer of the index."""

_PAUSE = 60.0
"""Seconds for which an index that did not answer is left alone."""


class PrefixIndex:
    """The index of the states on each node, with at most `limit` bytes of states per node.

    The states of one plan and batch form a bundle, and are added and dropped together.  The least recently used bundle
    is dropped first.  Bundles of a lost node are dropped when a new node appears.  `shared_prefixes` makes an actor of
    this class.
    """

    def __init__(self, limit: float, alive: Callable[[], Collection[str]]) -> None:
        self._limit, self._alive = limit, alive
        self._where: dict[tuple[str, str], tuple[int, int]] = {}  # node, key -> bundle, position in it
        self._bundles: dict[str, OrderedDict[int, tuple[Any, Sequence[str], int]]] = {}
        self._bytes: Counter[str] = Counter()
        self._made = 0

    def longest(self, node: str, keys: Sequence[str]) -> tuple[int, list[Any], int] | None:
        """Return where the longest prefix is that the node has; None when it has none.

        The answer is its index in `keys` (shortest prefix first), the reference to its bundle, and its position there.
        The reference is in a list, so that Ray does not fetch what it refers to.
        """
        found = None
        for index, key in enumerate(keys):
            if (node, key) in self._where:
                bundle, position = self._where[node, key]
                self._bundles[node].move_to_end(bundle)
                found = index, [self._bundles[node][bundle][0]], position
        return found

    def keep(self, node: str, keys: Sequence[str], reference: list[Any], size: int) -> None:
        """Add a bundle of `size` bytes, and drop the least recently used ones until all fit."""
        self._made += 1
        if node not in self._bundles:
            self._drop_lost_nodes()
        self._bundles.setdefault(node, OrderedDict())[self._made] = (reference[0], keys, size)
        self._bytes[node] += size
        for position, key in enumerate(keys):
            self._where.setdefault((node, key), (self._made, position))
        while self._bytes[node] > self._limit:
            self._drop(node, next(iter(self._bundles[node])))

    def drop(self, node: str, key: str) -> None:
        """Drop the bundle of a state that is no longer available."""
        if (node, key) in self._where:
            self._drop(node, self._where[node, key][0])

    def _drop_lost_nodes(self) -> None:
        for lost in self._bundles.keys() - set(self._alive()):
            for bundle in list(self._bundles[lost]):
                self._drop(lost, bundle)
            del self._bundles[lost], self._bytes[lost]

    def _drop(self, node: str, bundle: int) -> None:
        _, keys, size = self._bundles[node].pop(bundle)
        self._bytes[node] -= size
        for key in keys:
            if self._where.get((node, key), (0, 0))[0] == bundle:
                del self._where[node, key]


class NodePrefixes:
    """A worker's access to the states of its node; implements `trainers.inference.prefix_cache.Shared`."""

    def __init__(self, index: Any) -> None:
        self._index, self._silent_until = index, -math.inf
        self._pending_offer: Any = None

    def longest(self, keys: Sequence[str]) -> tuple[int, Arrays] | None:
        """Return index in `keys` and state of the longest prefix on this node; None when there is none in reach."""
        if time.monotonic() < self._silent_until:
            return None
        try:
            found = ray.get(self._index.longest.remote(_node(), list(keys)), timeout=_PATIENCE)
        except (ray.exceptions.RayError, TimeoutError) as error:
            self._pause(error)
            return None
        if found is None:
            return None
        at, (reference,), position = found
        try:
            return at, ray.get(reference, timeout=_PATIENCE)[position]
        except (ray.exceptions.RayError, TimeoutError):  # for example, the worker that made it has ended
            self._index.drop.remote(_node(), keys[at])
            return None

    def offer(self, states: Sequence[tuple[str, Arrays]]) -> None:
        """Offer states to the other workers of this node."""
        # No limit counts states that the index has not added yet, so at most one bundle is on its way.
        if time.monotonic() < self._silent_until or not self._is_free():
            return
        size = sum(
            array.nbytes
            for _, (x, earlier, clean, deep) in states
            for array in (x, *earlier.values(), *clean.values(), *deep)
        )
        try:
            reference = ray.put([arrays for _, arrays in states])
        except ray.exceptions.RayError as error:  # for example, a full object store: the evaluation matters more
            self._pause(error)
            return
        self._pending_offer = self._index.keep.remote(_node(), [key for key, _ in states], [reference], size)

    def _is_free(self) -> bool:
        return self._pending_offer is None or bool(ray.wait([self._pending_offer], timeout=0)[0])

    def _pause(self, error: Exception) -> None:
        ended = isinstance(error, ray.exceptions.RayActorError)
        self._silent_until = math.inf if ended else time.monotonic() + _PAUSE


@contextlib.contextmanager
def shared_prefixes(workers: WorkerSettings) -> Iterator[NodePrefixes | None]:
    """Provide the states that several workers share; None for one worker, or without a prefix cache.

    Needs a `ray_session`.
    """
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
