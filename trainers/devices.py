"""Choose and name the device that networks run on."""

from __future__ import annotations

import torch

from stepfront.errors import InputError, first_line


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


def device_name(device: torch.device) -> str:
    """Return a name that distinguishes devices in tables."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} thread" + ("s" if torch.get_num_threads() != 1 else "")
