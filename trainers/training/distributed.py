"""Divide a batch among the processes that train together, and sum their gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Group:
    """One of the `size` processes that train together.

    Whoever starts more than one process has to initialise `torch.distributed`.  `device` is the device of this process;
    None is the device of the settings.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def shares(self, batch: int, parts: int) -> list[slice]:
        """Return the part of this process of the images 0 ... batch - 1, in `parts` parts of nearly equal size."""
        total = self.size * parts
        edges = [i * batch // total for i in range(total + 1)]
        return [slice(edges[i], edges[i + 1]) for i in range(self.rank * parts, (self.rank + 1) * parts)]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes."""
        if self.size == 1:
            return
        # Not DistributedDataParallel: it sums in every backward pass, and a step has one per width and micro-batch.  It
        # also hooks into the module's own forward, while narrow widths are run by functional_call on slices.
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    @contextmanager
    def together(self, patience: float) -> Iterator[None]:
        """Wait at the end of the context for all processes, up to `patience` seconds.

        A training step waits only as long as `torch.distributed` was initialised with.
        """
        if self.size == 1:
            yield
            return
        waiting = dist.new_group(timeout=timedelta(seconds=patience), backend="gloo")
        yield
        dist.barrier(group=waiting)
        dist.destroy_process_group(waiting)

    def check_same(self, step: int) -> None:
        """Check that all processes are at the same step, since a shared disk may show an old file to one of them.

        Raises RuntimeError when they are not.
        """
        if self.size == 1:
            return
        device = self.device if self.device is not None else torch.device("cpu")
        steps = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.size)]
        dist.all_gather(steps, torch.tensor([step], device=device))
        if len({int(each) for each in steps}) > 1:
            raise RuntimeError(f"the workers' checkpoints differ: steps {', '.join(str(int(each)) for each in steps)}")
