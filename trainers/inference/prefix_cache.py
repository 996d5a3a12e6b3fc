"""States of recent plans, kept within a memory limit: a plan goes on from the longest prefix that it shares.

All plans begin from the same noise, so plans that agree on their first k steps are in the same state after them, to the
bit, and one of them has paid for it already.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stepfront.trainers.devices import device_name
from stepfront.trainers.diffusion.sampler import PlanRun, State

PLANS = 8
"""Of so many plans that share nothing the states fit the limit; with less room, each keeps fewer."""

Arrays = tuple[np.ndarray, np.ndarray | None]
"""A state as it travels between processes: x [B, C, H, W], and the clean image that the step before predicted."""


class Shared(Protocol):
    """States of other processes that run the same networks; a key names the device's kind, too."""

    def longest(self, keys: Sequence[str]) -> tuple[int, Arrays] | None:
        """Index in `keys` (shortest prefix first) and state of the longest prefix that is there."""

    def offer(self, states: Sequence[tuple[str, Arrays]]) -> None:
        """Gives states to the others."""


class Prefixes:
    """At most `limit` bytes of states on `device`; those that no plan has passed through for longest are let go.

    What other processes `shared` is looked up where the own states end, and kept.
    """

    def __init__(self, limit: float, shared: Shared | None = None, device: torch.device | None = None) -> None:
        self._limit, self._shared, self._device = limit, shared, device or torch.device("cpu")
        self._kind = device_name(self._device)
        self._states: OrderedDict[str, State] = OrderedDict()
        self._fresh: list[tuple[str, State]] = []
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

    def longest(self, keys: Sequence[str]) -> tuple[int, State] | None:
        """Index in `keys` (shortest prefix first) and state of the longest prefix that is kept."""
        for key in keys:
            if key in self._states:
                self._states.move_to_end(key)
        own = next((index for index in reversed(range(len(keys))) if keys[index] in self._states), -1)
        if self._shared is not None and own + 1 < len(keys):
            found = self._shared.longest([self._name(key) for key in keys[own + 1 :]])
            if found is not None:
                own += 1 + found[0]
                x, x0 = found[1]
                self._insert(keys[own], State(self._tensor(x), None if x0 is None else self._tensor(x0)))
        return (own, self._states[keys[own]]) if own >= 0 else None

    def keep(self, key: str, state: State) -> None:
        """Keeps a state, and lets the stalest go until all fit."""
        if key in self._states or _bytes(state) > self._limit:
            return
        self._insert(key, state)
        if self._shared is not None:
            self._fresh.append((key, state))

    def publish(self) -> None:
        """Shares what was kept since the last time: at once, so that no copy from a device interrupts a plan."""
        if self._shared is not None and self._fresh:
            self._shared.offer([(self._name(key), _arrays(state)) for key, state in self._fresh])
            self._fresh = []

    def _name(self, key: str) -> str:
        return f"{self._kind} {key}"  # a device of another kind may round otherwise

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.copy()).to(self._device)  # a view would hold the others' memory

    def _insert(self, key: str, state: State) -> None:
        self._states[key] = state
        self.bytes += _bytes(state)
        while self.bytes > self._limit:
            self.bytes -= _bytes(self._states.popitem(last=False)[1])


def _arrays(state: State) -> Arrays:
    return state.x.cpu().numpy(), None if state.x0 is None else state.x0.cpu().numpy()


def _bytes(state: State) -> int:
    return int(state.x.nbytes) + (0 if state.x0 is None else int(state.x0.nbytes))
