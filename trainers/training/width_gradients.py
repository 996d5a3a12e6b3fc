"""Run forward and backward passes of every width, and add the gradients to those of the widest network.

Each narrow width is a plain network with weights of its own.  Before a pass they are copied from the widest network's,
and after it their gradients are added to the widest network's.  That is less work than slicing with autograd, which
makes a gradient of full size, mostly zeros, from each slice.  It also leaves every pass a plain module, which can be
compiled or recorded.

A shallower network is another module around the same weights as the network of its width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.inference.cuda_graph import CudaGraph
from stepfront.trainers.inference.engine import compiled
from stepfront.trainers.networks.layers import parameter_segments, shared_views
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.training.batches import NoisyBatch
from stepfront.trainers.training.teacher import spectral_errors
from stepfront.trainers.training_settings import TrainingEngine, TrainingSettings
from stepfront.trainers.variant import Size


@dataclass(frozen=True)
class _Slices:
    """Views of equal shapes, one pair for each piece of a parameter that a narrow width shares with the widest."""

    wide: list[Tensor]
    narrow: list[Tensor]
    wide_gradients: list[Tensor]
    narrow_gradients: list[Tensor]
    all_gradients: list[Tensor]

    @torch.no_grad()
    def begin(self) -> None:
        """Copy the narrow network's weights from the widest, and set its gradients to zero."""
        torch._foreach_copy_(self.narrow, self.wide)
        torch._foreach_zero_(self.all_gradients)

    @torch.no_grad()
    def end(self) -> None:
        """Add the narrow network's gradients to those of the widest."""
        torch._foreach_add_(self.wide_gradients, self.narrow_gradients)


class SpectralTerm(NamedTuple):
    """The distance to a teacher over frequencies: its factor in the loss, and the frequencies' weights [C, H, W]."""

    factor: float
    weights: Tensor


def training_autocast(training: TrainingSettings, device: torch.device) -> torch.autocast:
    """Return the precision that networks run at in a training on a device: bfloat16, or none of its own."""
    enabled = training.precision == "bfloat16" or (training.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


class WidthGradients:
    """Adds gradients of any width to the `grad` of the supernet's parameters, which exist from here on.

    Whoever takes a step sets these gradients to zero in place; graphs hold their addresses.
    """

    def __init__(
        self,
        supernet: Supernet,
        engine: TrainingEngine,
        autocast: torch.autocast,
        spectral: SpectralTerm | None = None,
    ) -> None:
        """Build the narrow networks on the device of the supernet.

        `spectral` is added to the loss wherever there is a teacher.
        Raises InputError when the engine needs another device.
        """
        self._spectral = spectral
        self._autocast, self._records = autocast, engine in ("cuda_graphs", "compiled_cuda_graphs")
        device = next(supernet.widest.parameters()).device
        if self._records and device.type != "cuda":
            raise InputError(
                f"training.engine {engine} needs a GPU, and this training runs on {device}; "
                "possible here: plain, channels_last, compiled"
            )
        self.layout = layout = torch.contiguous_format if engine == "plain" else torch.channels_last
        supernet.widest.to(memory_format=layout)  # type: ignore[call-overload]
        _make_gradients(supernet.widest)
        self._networks: dict[Size, nn.Module] = {Size(1.0): supernet.widest}
        self._slices: dict[float, _Slices] = {}
        for width in supernet.widths[:-1]:
            network = supernet.backbone(width).requires_grad_(True).train()
            network.to(memory_format=layout)  # type: ignore[call-overload]
            _make_gradients(network)
            self._networks[Size(width)], self._slices[width] = network, _slices_of(supernet.widest, network)
        for width, depth in supernet.sizes:
            if depth is not None:
                shallower = supernet.shallower(self._networks[Size(width)], width, depth)
                self._networks[Size(width, depth)] = shallower.train()
        compiles = engine in ("compiled", "compiled_cuda_graphs")
        self._calls = {size: compiled(each) if compiles else each for size, each in self._networks.items()}
        self._graphs: dict[tuple[object, ...], CudaGraph] = {}
        self._pool: Any = None

    def add(
        self,
        width: float,
        batch: NoisyBatch,
        goal: Tensor,
        share: float,
        taught: Tensor | None = None,
        depth: int | None = None,
    ) -> Tensor:
        """Add the gradient of `share` times the squared error against `goal`; return the prediction [B, C, H, W].

        `taught` is what a teacher predicts [B, C, H, W], which the spectral term compares with; None: nobody teaches.
        """
        size, given = Size(width, depth), self._given(batch, goal, taught)
        if not self._records:
            return self._run(size, share, tuple(given), *given.values())
        return self._graphs[self._key(size, batch.x, batch.label)](*given.values())

    def recorded(self, width: float, images: Tensor, label: Tensor | None, depth: int | None = None) -> bool:
        """Return whether `add` can run on such images [B, C, H, W]; always true of an engine that records nothing."""
        return not self._records or self._key(Size(width, depth), images, label) in self._graphs

    def record(
        self, width: float, batch: NoisyBatch, share: float, is_taught: bool = False, depth: int | None = None
    ) -> None:
        """Record what `add` replays for batches like this one.  The gradients are then arbitrary."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()  # one for all widths: they run one after the other
        size, given = Size(width, depth), self._given(batch, batch.target, batch.target if is_taught else None)
        run = partial(self._run, size, share, tuple(given))
        self._graphs[self._key(size, batch.x, batch.label)] = CudaGraph(run, tuple(given.values()), self._pool)

    @staticmethod
    def _key(size: Size, images: Tensor, label: Tensor | None) -> tuple[object, ...]:
        return size, images.shape, label is None

    def _given(self, batch: NoisyBatch, goal: Tensor, taught: Tensor | None) -> dict[str, Tensor]:
        """Return all that a pass reads, by name."""
        others = {
            "weight": batch.weight,
            "label": batch.label,
            "taught": None if self._spectral is None else taught,
        }
        given = {name: value for name, value in others.items() if value is not None}
        return {"x": batch.x, "t": batch.t, "goal": goal, **given}

    def _run(self, size: Size, share: float, names: tuple[str, ...], *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        label = [given["label"]] if "label" in given else []
        slices = self._slices.get(size.width)  # the widest network has none
        if slices is not None:
            slices.begin()
        with self._autocast:
            predicted = self._calls[size](given["x"].to(memory_format=self.layout), given["t"], *label)
        (self._loss(predicted.float(), given) * share).backward()
        if slices is not None:
            slices.end()
        return predicted.detach().float()

    def _loss(self, predicted: Tensor, given: dict[str, Tensor]) -> Tensor:
        """Return the mean loss of a pass, in float32 and outside of autocast."""
        weight, goal, spectral = given.get("weight"), given["goal"], self._spectral
        if weight is None:
            loss = F.mse_loss(predicted, goal)
        else:
            loss = (weight * (predicted - goal).square().mean((1, 2, 3))).mean()
        if spectral is not None and "taught" in given:
            errors = spectral_errors(predicted, given["taught"], spectral.weights)
            loss = loss + spectral.factor * (errors if weight is None else weight * errors).mean()
        return loss


def _make_gradients(network: nn.Module) -> None:
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)


def _slices_of(widest: nn.Module, network: nn.Module) -> _Slices:
    wide_segments, segments = parameter_segments(widest), parameter_segments(network)
    wide, slices = dict(widest.named_parameters()), _Slices([], [], [], [], [])
    for name, narrow in network.named_parameters():
        axes, wide_gradient, gradient = (wide_segments[name], segments[name]), wide[name].grad, narrow.grad
        assert wide_gradient is not None
        assert gradient is not None
        for wide_view, narrow_view in shared_views(wide[name].detach(), narrow.detach(), *axes):
            slices.wide.append(wide_view)
            slices.narrow.append(narrow_view)
        for wide_view, narrow_view in shared_views(wide_gradient, gradient, *axes):
            slices.wide_gradients.append(wide_view)
            slices.narrow_gradients.append(narrow_view)
        slices.all_gradients.append(gradient)
    return slices
