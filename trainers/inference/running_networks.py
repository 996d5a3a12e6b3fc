"""Keep the networks that plans run, made when the first plan needs them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.types import Network
from stepfront.trainers.inference.engine import Engine
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import supernet_from_weights
from stepfront.trainers.variant import Size


@dataclass
class PlanNetworks:
    """Networks on one set of weights: those of full depth by their widths, and the others by their sizes."""

    full: dict[float, Network] = field(default_factory=dict)
    shallower: dict[Size, Network] = field(default_factory=dict)


class RunningNetworks:
    """The networks of a supernet on `device` under an engine, for calls of `batch` images.

    `fitted` are weights that were fitted to plans, by their digests; each has networks of its own.
    """

    def __init__(
        self,
        card: SupernetCard,
        weights: Mapping[str, np.ndarray],
        fitted: Mapping[str, Mapping[str, np.ndarray]],
        engine: Engine,
        device: torch.device,
        batch: int,
    ) -> None:
        self._card, self._fitted, self._engine, self._device, self._batch = card, fitted, engine, device, batch
        self.supernet = _with_weights(card, weights)
        self._kept: dict[str, PlanNetworks] = {}

    def of(self, plan: Plan) -> PlanNetworks:
        """Return networks among which are all that the plan runs.

        Raises InputError for a width, a depth or fitted weights that are not there.
        """
        plan.check_widths(self.supernet.widths)
        plan.check_depths(self.supernet.settings.depths)
        kept = self._kept.setdefault(plan.weights, PlanNetworks())
        sizes = {plan.variants[i].size for i in plan.taken}
        missing = {size for size in sizes if size not in kept.shallower and (size.depth or size.width not in kept.full)}
        supernet = self._supernet_of(plan) if missing else self.supernet
        for size in missing:
            network = self._engine.run(supernet.subnet(*size), self._device, self._batch)
            if size.depth is None:
                kept.full[size.width] = network
            else:
                kept.shallower[size] = network
        return kept

    def _supernet_of(self, plan: Plan) -> Supernet:
        """Return the supernet, with the weights that were fitted to the plan where there are any."""
        if not plan.weights:
            return self.supernet
        if plan.weights not in self._fitted:
            raise InputError(f"the weights {plan.weights} that were fitted to the plan {plan.runs} are missing")
        return _with_weights(self._card, self._fitted[plan.weights])


def _with_weights(card: SupernetCard, weights: Mapping[str, np.ndarray]) -> Supernet:
    return supernet_from_weights(card, {name: _as_tensor(array) for name, array in weights.items()})


def _as_tensor(array: np.ndarray) -> Tensor:
    # The arrays may be read-only views of shared memory; nothing writes to them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
