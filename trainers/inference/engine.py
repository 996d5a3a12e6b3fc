"""Run a network on a device: memory layout, convolutions, compilation and precision.

The fastest engine differs between devices and networks, so it is measured on the device that does the work.  An engine
that changes the output by more than a stated tolerance is refused.
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
    """How to run a network.

    `winograd` and `compiled` (by torch.compile) use channels-last weights; `winograd` is for float32 on CPUs.
    """

    name: EngineName = "plain"
    precision: Precision = "float32"

    @property
    def label(self) -> str:
        """The name in tables, such as `channels_last` or `plain bfloat16`."""
        return self.name if self.precision == "float32" else f"{self.name} {self.precision}"

    def run(self, network: nn.Module, device: torch.device, batch: int) -> Running:
        """Return the network on `device` under this engine.

        Code is compiled for `batch` images alone; any other number of images runs without it.
        """
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
        self._compiled = compiled(self._network) if engine.name == "compiled" else None
        self._batch = batch

    def __call__(self, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        call = self._compiled if self._compiled is not None and len(x) == self._batch else self._network
        eps: Tensor = call(x.to(self._dtype, memory_format=self._format), t, *label)
        return eps.to(torch.float32, memory_format=torch.contiguous_format)


def compiled(network: nn.Module) -> Callable[..., Tensor]:
    """Compile a network for one shape of input."""
    import torch._dynamo

    # All widths are one piece of code to torch.compile, and beyond this limit it silently runs the rest uncompiled.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(network, dynamic=False)
