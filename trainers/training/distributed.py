"""The processes that train together: which images of a batch are whose, and the sum of their gradients."""

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
    """One of `size` processes.  Of more than one, `torch.distributed` has been initialised by whoever started them.

    `device` is what this process computes on; None is what the settings say.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def shares(self, batch: int, parts: int) -> list[slice]:
        """This process's part of the images 0 ... batch - 1, in `parts` parts of nearly equal size."""
        total = self.size * parts
        edges = [i * batch // total for i in range(total + 1)]
        return [slice(edges[i], edges[i + 1]) for i in range(self.rank * parts, (self.rank + 1) * parts)]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Puts the sum over all processes in the place of every gradient."""
        if self.size == 1:
            return
        # Not DistributedDataParallel: it sums in each backward pass, and a step has one a width and micro-batch; it
        # also wants to see the module's own forward, while narrow widths are run by functional_call on slices.
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    @contextmanager
    def together(self, patience: float) -> Iterator[None]:
        """What is done inside may take some of the processes up to `patience` seconds longer than others, which wait at
        its end; a step of a training waits no longer than `torch.distributed` was told to."""
        if self.size == 1:
            yield
            return
        waiting = dist.new_group(timeout=timedelta(seconds=patience), backend="gloo")
        yield
        dist.barrier(group=waiting)
        dist.destroy_process_group(waiting)

    def check_same(self, step: int) -> None:
        """RuntimeError where the processes are not all at the same step: a shared disk may show one of them a file
        that is old."""
        if self.size == 1:
            return
        device = self.device if self.device is not None else torch.device("cpu")
        steps = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.size)]
        dist.all_gather(steps, torch.tensor([step], device=device))
        if len({int(each) for each in steps}) > 1:
            raise RuntimeError(f"the workers' checkpoints differ: steps {', '.join(str(int(each)) for each in steps)}")
