"""States of recent plans, kept within a memory limit: a plan goes on from the longest prefix that it shares.

All plans begin from the same noise, so plans that agree on their first k steps are in the same state after them, to the
bit, and one of them has paid for it already.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from trainers.sampling import PlanRun, State

PLANS = 8
"""Of so many plans that share nothing the states fit the limit; with less room, each keeps fewer."""

Key = tuple[Hashable, ...]


class Prefixes:
    """At most `limit` bytes of states; those that no plan has passed through for longest are let go."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._states: OrderedDict[Key, State] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def positions(self, run: PlanRun, state: State) -> range:
        """The steps before which this plan's state is worth keeping, evenly spread: all of them where there is room."""
        each = state.x.nbytes * (2 if run.multistep else 1)
        kept = int(self._limit / PLANS / each) or int(self._limit >= each)
        if not kept:
            return range(0)
        apart = math.ceil(len(run) / (kept + 1))
        return range(apart, len(run), apart)

    def longest(self, keys: Sequence[Key]) -> tuple[int, State] | None:
        """Index in `keys` (shortest prefix first) and state of the longest prefix that is kept."""
        for key in keys:
            if key in self._states:
                self._states.move_to_end(key)
        for index in reversed(range(len(keys))):
            if keys[index] in self._states:
                return index, self._states[keys[index]]
        return None

    def keep(self, key: Key, state: State) -> None:
        """Keeps a state, and lets the stalest go until all fit."""
        if key in self._states or _bytes(state) > self._limit:
            return
        self._states[key] = state
        self.bytes += _bytes(state)
        while self.bytes > self._limit:
            self.bytes -= _bytes(self._states.popitem(last=False)[1])


def _bytes(state: State) -> int:
    return int(state.x.nbytes) + (0 if state.x0 is None else int(state.x0.nbytes))
