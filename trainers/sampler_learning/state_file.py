"""Save and restore learning, so that an interrupted one continues to the same numbers."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepfront.files import write_atomically
from stepfront.trainers.sampler_learning.descent import Check, Descent

_COPIES = ("parameters", "averaged", "best")


def save_descent(path: Path, key: str, descent: Descent, seconds: float, calls: dict[float, int]) -> None:
    """Write the state of learning from one start, atomically; `key` names all that it depends on."""
    tensors = {
        f"{copy}.{name}": tensor.detach().clone()
        for copy in _COPIES
        for name, tensor in getattr(descent, copy).tensors().items()
    }
    for name, tensor in descent.learnt.items():
        for moment, value in descent.optimizer.state[tensor].items():
            tensors[f"{moment}.{name}"] = value.detach().clone()
    if descent.noise_moved is not None:
        tensors["noise_moved"] = descent.noise_moved.detach().cpu()
    facts = {
        "iteration": descent.iteration,
        "history": [astuple(check) for check in descent.history],
        "seconds": seconds,
        "calls": sorted(calls.items()),
    }
    metadata = {"key": key, "facts": json.dumps(facts)}
    write_atomically(path, lambda beside: save_file(tensors, beside, metadata), recorded=False)


def restore_descent(path: Path, key: str, descent: Descent) -> tuple[dict[float, int], float]:
    """Put a saved state in the place of `descent`'s, and return the calls and seconds it took.

    Nothing changes where there is no complete file or it belongs to other learning.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError, ValueError):
        return {}, 0.0
    if metadata.get("key") != key:
        return {}, 0.0
    facts = json.loads(metadata["facts"])
    with torch.no_grad():
        for copy in _COPIES:
            for name, tensor in getattr(descent, copy).tensors().items():
                tensor.copy_(tensors[f"{copy}.{name}"])
    for name, tensor in descent.learnt.items():
        descent.optimizer.state[tensor] = _moments(tensors, name)
    if "noise_moved" in tensors:
        descent.noise_moved = tensors["noise_moved"]
    descent.iteration = facts["iteration"]
    descent.history = [Check(*check) for check in facts["history"]]
    return dict(facts["calls"]), facts["seconds"]


def _moments(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {moment: tensors[f"{moment}.{name}"] for moment in ("step", "exp_avg", "exp_avg_sq")}
