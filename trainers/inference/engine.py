"""How a network is run on a device: its memory layout, its convolutions, whether it is compiled, and its precision.

What is fastest differs from device to device and from network to network, so it is measured, on the device that will do
the work; what changes the numbers by more than a stated tolerance is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from stepfront.trainers.config import Settings
from stepfront.trainers.inference.winograd import use_winograd

EngineName = Literal["plain", "channels_last", "winograd", "compiled"]
Precision = Literal["float32", "bfloat16"]


class Engine(Settings):
    """`winograd` and `compiled` (by torch.compile) work on channels-last weights; `winograd` is for float32 on CPUs."""

    name: EngineName = "plain"
    precision: Precision = "float32"

    @property
    def label(self) -> str:
        """`channels_last`, or `plain bfloat16`."""
        return self.name if self.precision == "float32" else f"{self.name} {self.precision}"

    def run(self, network: nn.Module, device: torch.device, batch: int) -> Running:
        """The network on `device` under this engine.  Compiled code is made for `batch` images alone; any other number
        is run without it."""
        return Running(network, self, device, batch)


PLAIN = Engine()


class Running:
    """A network that runs: x [B, C, H, W] float32, t [B], label [B] for one with classes -> predicted noise float32."""

    def __init__(self, network: nn.Module, engine: Engine, device: torch.device, batch: int) -> None:
        self._dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[engine.precision]
        self._format = torch.contiguous_format if engine.name == "plain" else torch.channels_last
        # New tensors where anything changes: the given weights may be shared and are never written to.
        self._network = network.to(device, self._dtype)
        if engine.name == "winograd":
            use_winograd(self._network)
        if engine.name != "plain":
            self._network.to(memory_format=self._format)  # type: ignore[call-overload]
        self._compiled = compiled(self._network) if engine.name == "compiled" else None
        self._batch = batch

    def __call__(self, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        call = self._compiled if self._compiled is not None and len(x) == self._batch else self._network
        eps: Tensor = call(x.to(self._dtype, memory_format=self._format), t, *label)
        return eps.to(torch.float32, memory_format=torch.contiguous_format)


def compiled(network: nn.Module) -> Callable[..., Tensor]:
    """torch.compile for one shape of input."""
    import torch._dynamo

    # All widths are one piece of code to it, and beyond this limit it runs the rest uncompiled without a word.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(network, dynamic=False)
