"""Run a network on a device: memory layout, convolutions, compilation, CUDA graphs and precision.

The fastest engine differs between devices and networks, so it is measured on the device that does the work.  An engine
that changes the output by more than a stated tolerance is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stepfront.trainers.inference.cuda_graph import CudaGraph
from stepfront.trainers.inference.winograd import use_winograd
from stepfront.trainers.networks.deep_features import splits
from stepfront.trainers.networks.supernet import GroupedNetwork
from stepfront.trainers.validation import Settings

EngineName = Literal["plain", "channels_last", "winograd", "compiled", "cuda_graphs", "compiled_cuda_graphs"]
Precision = Literal["float32", "bfloat16"]


class Engine(Settings):
    """How to run a network.

    All but `plain` use channels-last weights.  `winograd` is for float32 on CPUs.  `compiled` is by torch.compile.
    `cuda_graphs` replays the kernels of a call as one CUDA graph, and `compiled_cuda_graphs` those of a compiled call.
    """

    name: EngineName = "plain"
    precision: Precision = "float32"

    @property
    def compiles(self) -> bool:
        """Whether the network is compiled, which takes long."""
        return self.name in ("compiled", "compiled_cuda_graphs")

    @property
    def records(self) -> bool:
        """Whether calls are recorded as CUDA graphs, which only GPUs have."""
        return self.name in ("cuda_graphs", "compiled_cuda_graphs")

    @property
    def label(self) -> str:
        """The name in tables, such as `channels_last` or `plain bfloat16`."""
        return self.name if self.precision == "float32" else f"{self.name} {self.precision}"

    def run(self, network: nn.Module, device: torch.device, batch: int) -> Running | RunningGroups:
        """Return the network on `device` under this engine; of groups of times, those that are called.

        Code is compiled, and graphs are recorded, for `batch` images alone; any other number runs without it.
        """
        if isinstance(network, GroupedNetwork):
            return RunningGroups(network, self, device, batch)
        return Running(network, self, device, batch)


PLAIN = Engine()


class Running:
    """A network on a device: x [B, C, H, W] float32, t [B] and, with classes, label [B] -> predicted noise float32."""

    def __init__(self, network: nn.Module, engine: Engine, device: torch.device, batch: int) -> None:
        self._dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[engine.precision]
        self._format = torch.contiguous_format if engine.name == "plain" else torch.channels_last
        # Conversions make new tensors: the given weights may be shared, and are never written to.
        self._network = network.to(device, self._dtype)
        if engine.name == "winograd":
            use_winograd(self._network)
        if engine.name != "plain":
            self._network.to(memory_format=self._format)  # type: ignore[call-overload]
        self._call: Callable[..., Tensor] = compiled(self._network) if engine.compiles else self._network
        self._records, self._batch, self._engine = engine.records, batch, engine
        # Two more calls per network would double the compiling: these compile when the first plan reuses features.
        self._parts: dict[str, Callable[..., Any]] = {}
        self._graph: CudaGraph | None = None

    def __call__(self, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        given = (self._read(x), t, *label)
        if len(x) != self._batch:
            eps: Tensor = self._network(*given)
        elif self._records:
            if self._graph is None:  # only the first call knows whether there are labels
                self._graph = CudaGraph(self._without_gradients, given)
            eps = self._graph(*given)
        else:
            eps = self._call(*given)
        return self._float(eps)

    @property
    def splits(self) -> bool:
        """Whether the network can reuse deep features (networks/deep_features.py)."""
        return splits(self._network)

    def with_features(self, x: Tensor, t: Tensor, *label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted noise and the deep features, float32; never as a CUDA graph."""
        eps, deep = self._part("with_features", len(x))(self._read(x), t, *label)
        return self._float(eps), self._float(deep)

    def reusing(self, deep: Tensor, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        """Return the predicted noise on deep features of another call; never as a CUDA graph."""
        features = deep.to(self._dtype, memory_format=self._format)
        return self._float(self._part("reusing", len(x))(features, self._read(x), t, *label))

    def _part(self, name: str, batch: int) -> Callable[..., Any]:
        part = getattr(self._network, name)
        if batch != self._batch or not self._engine.compiles:
            return part
        if name not in self._parts:
            self._parts[name] = compiled(part)
        return self._parts[name]

    def _read(self, x: Tensor) -> Tensor:
        dtype = torch.float32 if getattr(self._network, "reads_float32", False) else self._dtype
        return x.to(dtype, memory_format=self._format)

    @staticmethod
    def _float(tensor: Tensor) -> Tensor:
        return tensor.to(torch.float32, memory_format=torch.contiguous_format)

    def _without_gradients(self, *given: Tensor) -> Tensor:
        with torch.inference_mode():
            return self._call(*given)


class RunningGroups:
    """A `Running` per group of times, made when the first call needs it; a call has times of one group alone."""

    splits = False
    """Features of one group's weights mean nothing to another's."""

    def __init__(self, network: GroupedNetwork, engine: Engine, device: torch.device, batch: int) -> None:
        self._network, self._given = network, (engine, device, batch)
        self._running: dict[int, Running] = {}

    def __call__(self, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        group = self._network.group_of(float(t[0]))
        if group not in self._running:
            self._running[group] = Running(self._network.networks[group], *self._given)
        return self._running[group](x, t, *label)


def compiled(network: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a network, or a method of one, for one shape of input."""
    import torch._dynamo

    # All widths are one piece of code to torch.compile, and beyond this limit it silently runs the rest uncompiled.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(network, dynamic=False)
