"""Run the outermost level of a network on deep features of an earlier call (DeepCache, arXiv 2312.00858).

Features of consecutive steps differ little, so a step may compute the outermost level alone.  It takes what the levels
below would hand up from the last full step.  Nothing is trained for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from stepfront.errors import InputError


class SplitNetwork(Protocol):
    """A network that splits at a level boundary; `splits` is False where its settings give it no boundary."""

    splits: bool

    def __call__(self, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        """Return the predicted noise [B, C, H, W] of x [B, C, H, W] at times [B]; label [B] where there are classes."""
        ...

    def with_features(self, x: Tensor, t: Tensor, *label: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a call returns, and the deep features [B, D, H, W]."""
        ...

    def reusing(self, deep: Tensor, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        """Return the predicted noise of the outermost level on the deep features of another call.

        With the features of the same call it is that call's prediction, bit for bit.
        """
        ...


def splits(network: object) -> bool:
    """Return whether a network can reuse deep features."""
    return bool(getattr(network, "splits", False))


def check_splits(network: object, whose: str) -> None:
    """Raise InputError when a network can't reuse deep features; `whose` begins the message, as `the plan ...`."""
    if not splits(network):
        raise InputError(
            f"{whose} reuses deep features (r), and this network has no level boundary to split at; possible: the "
            "families unet, spectral and ode with two or more multipliers, or plans without r"
        )


class FeatureCalls:
    """The calls of one step, one or two under guidance: each reuses features, or keeps its own, or neither.

    It is called as the network is, always in one order: without a label first.  `deep` are the features of the calls of
    the last full step, in this order.  An unguided step takes those of the last call, which had the label, too.
    """

    def __init__(self, network: Callable[..., Tensor], deep: Sequence[Tensor], keeps: bool) -> None:
        self._network, self._deep, self._keeps = network, list(deep), keeps
        self.kept: tuple[Tensor, ...] = ()

    def __call__(self, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        """Return the predicted noise [B, C, H, W]."""
        network: SplitNetwork = self._network  # type: ignore[assignment]
        if self._deep:
            return network.reusing(self._deep.pop(0), x, t, *label)
        if not self._keeps:
            return self._network(x, t, *label)
        eps, deep = network.with_features(x, t, *label)
        self.kept = (*self.kept, deep)
        return eps
