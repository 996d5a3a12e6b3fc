"""Cache the states of recent plans within a memory limit, so that a plan continues from its longest known prefix.

All plans begin from the same noise.  Plans that agree on their first k steps are therefore in the same state after
them, to the bit, and it needs to be computed once.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stepfront.trainers.devices import device_name
from stepfront.trainers.diffusion.plan_run import PlanRun
from stepfront.trainers.diffusion.sampler import State

PLANS = 8
"""Number of plans without common prefixes whose states fit the limit; with less memory, each plan caches fewer."""

Arrays = tuple[np.ndarray, Mapping[int, np.ndarray], Mapping[int, np.ndarray], tuple[np.ndarray, ...]]
"""A `State` on its way between processes: x, earlier states, predicted clean images and deep features [B, ?, H, W]."""


class Shared(Protocol):
    """States of other processes that run the same networks; keys include the kind of device."""

    def longest(self, keys: Sequence[str]) -> tuple[int, Arrays] | None:
        """Return index in `keys` (shortest prefix first) and state of the longest prefix that another process has."""

    def offer(self, states: Sequence[tuple[str, Arrays]]) -> None:
        """Offer states to the other processes."""


class Prefixes:
    """At most `limit` bytes of states on `device`; the least recently used are dropped first.

    Longer prefixes are looked up in the states that other processes `shared`, and cached.
    """

    def __init__(self, limit: float, shared: Shared | None = None, device: torch.device | None = None) -> None:
        self._limit, self._shared, self._device = limit, shared, device or torch.device("cpu")
        self._kind = device_name(self._device)
        self._states: OrderedDict[str, State] = OrderedDict()
        self._unshared: list[tuple[str, State]] = []
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def positions(self, run: PlanRun, state: State) -> range:
        """Return the steps before which a plan's state is worth caching: all that fit, evenly spread."""
        each = state.x.nbytes * (1 + run.history)
        count = int(self._limit / PLANS / each) or int(self._limit >= each)
        if not count:
            return range(0)
        apart = math.ceil(len(run) / (count + 1))
        return range(apart, len(run), apart)

    def longest(self, keys: Sequence[str]) -> tuple[int, State] | None:
        """Return index in `keys` (shortest prefix first) and state of the longest known prefix; None without one."""
        for key in keys:
            if key in self._states:
                self._states.move_to_end(key)
        own = next((index for index in reversed(range(len(keys))) if keys[index] in self._states), -1)
        if self._shared is not None and own + 1 < len(keys):
            found = self._shared.longest([self._name(key) for key in keys[own + 1 :]])
            if found is not None:
                own += 1 + found[0]
                self._insert(keys[own], self._state(*found[1]))
        return (own, self._states[keys[own]]) if own >= 0 else None

    def keep(self, key: str, state: State) -> None:
        """Cache a state, and drop the least recently used ones until all fit."""
        # Deep features are far larger than images: those that would drive out the states of other plans are left out.
        if key in self._states or state.nbytes > (self._limit / PLANS if state.deep else self._limit):
            return
        self._insert(key, state)
        if self._shared is not None:
            self._unshared.append((key, state))

    def publish(self) -> None:
        """Share the states cached since the last call, together, so that no copy from a device interrupts a plan."""
        if self._shared is not None and self._unshared:
            self._shared.offer([(self._name(key), _arrays(state)) for key, state in self._unshared])
            self._unshared = []

    def _name(self, key: str) -> str:
        return f"{self._kind} {key}"  # a device of another kind may round differently

    def _state(
        self,
        x: np.ndarray,
        states: Mapping[int, np.ndarray],
        clean: Mapping[int, np.ndarray],
        deep: tuple[np.ndarray, ...],
    ) -> State:
        earlier, predicted = ({j: self._tensor(array) for j, array in arrays.items()} for arrays in (states, clean))
        return State(self._tensor(x), earlier, predicted, tuple(map(self._tensor, deep)))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.copy()).to(self._device)  # a view would keep the other process's memory alive

    def _insert(self, key: str, state: State) -> None:
        self._states[key] = state
        self.bytes += state.nbytes
        while self.bytes > self._limit:
            self.bytes -= self._states.popitem(last=False)[1].nbytes


def _arrays(state: State) -> Arrays:
    states, clean = ({j: tensor.cpu().numpy() for j, tensor in held.items()} for held in (state.states, state.clean))
    return state.x.cpu().numpy(), states, clean, tuple(tensor.cpu().numpy() for tensor in state.deep)
