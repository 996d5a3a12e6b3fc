"""States that the workers of a node share: a plan goes on from the longest prefix that any of them has computed.

The states lie in Ray's object store, so they end with the worker that made them, and all with the search; one small
actor knows which there are.  They do not cross nodes: another processor may round otherwise, and scores are to stay the
same to the bit.  A search without its index, or without a state that the index names, computes what it misses.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.config import WorkerSettings
from search.placement import worker_count

if TYPE_CHECKING:
    from trainers.prefixes import Arrays

_PATIENCE = 5.0
"""Seconds after which an answer is not waited for: to compute the steps is never much worse."""


class PrefixIndex:
    """Which states lie on each node, `limit` bytes of them at most; those asked for least lately are let go.

    Made an actor by `share_prefixes`.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._nodes: dict[str, OrderedDict[str, tuple[Any, int]]] = {}
        self._bytes: Counter[str] = Counter()

    def longest(self, node: str, keys: Sequence[str]) -> tuple[int, list[Any]] | None:
        """Index in `keys` (shortest prefix first) of the longest prefix that is there, and the reference to its state,
        in a list, so that the state itself stays where it is."""
        states, found = self._nodes.get(node, OrderedDict()), None
        for index, key in enumerate(keys):
            if key in states:
                states.move_to_end(key)
                found = index, [states[key][0]]
        return found

    def keep(self, node: str, key: str, reference: list[Any], size: int) -> None:
        """Takes in a state of so many bytes, and lets the stalest go until all fit."""
        states = self._nodes.setdefault(node, OrderedDict())
        if key in states:
            return
        states[key] = (reference[0], size)
        self._bytes[node] += size
        while self._bytes[node] > self._limit:
            self.drop(node, next(iter(states)))

    def drop(self, node: str, key: str) -> None:
        """Lets a state go."""
        _, size = self._nodes.get(node, OrderedDict()).pop(key, (None, 0))
        self._bytes[node] -= size


class NodePrefixes:
    """A worker's access to the states of its node; implements `trainers.prefixes.Shared`."""

    def __init__(self, index: Any) -> None:
        self._index, self._gone = index, False

    def longest(self, keys: Sequence[str]) -> tuple[int, Arrays] | None:
        """Index in `keys` and state of the longest prefix on this node; None where that can't be had."""
        found = self._ask(keys)
        if found is None:
            return None
        at, (reference,) = found
        try:
            return at, ray.get(reference, timeout=_PATIENCE)
        except (ray.exceptions.RayError, TimeoutError):  # the worker that made it is gone, for one
            self._index.drop.remote(_node(), keys[at])
            return None

    def offer(self, states: Sequence[tuple[str, Arrays]]) -> None:
        """Gives states to the other workers of this node."""
        if self._gone:
            return
        try:
            for key, arrays in states:
                size = sum(0 if array is None else array.nbytes for array in arrays)
                self._index.keep.remote(_node(), key, [ray.put(arrays)], size)
        except ray.exceptions.RayError:  # a full object store, for one: the evaluation is worth more
            self._gone = True

    def _ask(self, keys: Sequence[str]) -> tuple[int, list[Any]] | None:
        if self._gone:
            return None
        try:
            found: tuple[int, list[Any]] | None = ray.get(
                self._index.longest.remote(_node(), list(keys)), timeout=_PATIENCE
            )
            return found
        except ray.exceptions.RayActorError:
            self._gone = True
        except (ray.exceptions.RayError, TimeoutError):
            pass
        return None


def share_prefixes(workers: WorkerSettings) -> NodePrefixes | None:
    """What several workers share; None where there is one alone, or nothing is kept.  Needs a `ray_session`."""
    several = workers.count != 1 and (workers.address is not None or worker_count(workers) > 1)
    if not several or not workers.prefix_mb:
        return None
    here = NodeAffinitySchedulingStrategy(_node(), soft=True)
    index = ray.remote(PrefixIndex).options(num_cpus=0, scheduling_strategy=here).remote(workers.prefix_mb * 2**20)
    return NodePrefixes(index)


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())
