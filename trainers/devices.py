"""Choose and name the device that networks run on."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from stepfront.errors import InputError, first_line

_CLEARLY_SLOWER, _RUNS = 1.5, 8


def pick_device(name: str) -> torch.device:
    """Return the device of this name; `auto` is the first GPU, or the CPU where there is none.

    Raises InputError when the device can't be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # The device of a tensor has an index, which torch's limit on memory asks for.
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        possible = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        line = first_line(error)
        raise InputError(f"device {name!r} can't be used ({line[:100]}); possible here: auto, {possible}") from None


def device_of_driver(name: str, workers: int) -> torch.device:
    """Return the device of the process that starts a training; `name` is the setting of the workers' own.

    The driver of a cluster may lack the device of its workers.  Raises InputError as `pick_device` does.
    """
    return pick_device("auto" if workers > 1 else name)


@contextmanager
def own_generators(device: torch.device) -> Iterator[None]:
    """Leave the global generators of the CPU and of `device` as they were, whatever is seeded and drawn inside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the global generators of the CPU and of `device`, and no other GPU's."""
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


class ThreadWatch:
    """Chooses how many threads a long computation of this process uses, and chooses again while it runs.

    Threads that wait for each other spin, so a training on all cores of a machine on which something else runs can be
    ten times slower than on one.  A short convolution is timed on all cores, half of them and one.  Threads are only
    given up, never taken back.  Nothing happens on a GPU, and where OMP_NUM_THREADS is set.
    """

    def __init__(self, device: torch.device, say: Callable[[str], None], every: float = 20.0) -> None:
        self._device, self._say, self._every = device, say, every
        self._next = -math.inf

    def look(self) -> None:
        """Choose the threads at the first call and every `every` seconds; say so where some are given up."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        cores = torch.get_num_threads()
        if self._device.type != "cpu" or cores == 1 or os.environ.get("OMP_NUM_THREADS"):
            return
        seconds = {threads: _seconds(threads) for threads in dict.fromkeys([cores, max(1, cores // 2), 1])}
        best = min(seconds, key=lambda threads: seconds[threads])
        if seconds[cores] < _CLEARLY_SLOWER * seconds[best]:
            best = cores
        torch.set_num_threads(best)
        if best < cores:
            times = seconds[cores] / seconds[best]
            self._say(
                f"the machine is busy: {cores} threads are {times:.1f} times slower than {best}, so {best} of {cores} "
                "are used (OMP_NUM_THREADS overrides this)"
            )


def _seconds(threads: int) -> float:
    """Return the median time of a small training step, forward and backward, with a number of threads."""
    torch.set_num_threads(threads)
    x, weight = torch.ones(32, 16, 16, 16), torch.ones(16, 16, 3, 3, requires_grad=True)
    times = []
    for _ in range(_RUNS):
        begin = time.perf_counter()
        torch.nn.functional.conv2d(x, weight, padding=1).square().sum().backward()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def device_name(device: torch.device) -> str:
    """Return a name that distinguishes devices in tables."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} thread" + ("s" if torch.get_num_threads() != 1 else "")
