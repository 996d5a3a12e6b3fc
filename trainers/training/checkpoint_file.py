"""Write and read the checkpoint of a training.

It is one safetensors file with weights, average, moments and step, so that they can never disagree.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepfront.errors import InputError
from stepfront.files import write_atomically
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.training.state import TrainingState
from stepfront.trainers.validation import settings_json

CHECKPOINT_FILE = "checkpoint.safetensors"

NO_EFFECT_ON_WEIGHTS = (
    *("checkpoint_every", "checkpoints", "samples_every", "held_out_images"),
    *("workers", "restarts", "accumulate", "device", "engine"),
)
"""Training settings that may differ when a training resumes: they decide where and how it runs, not its result."""

_LATER = {"network": ("inner_steps", "dit", "depths"), "training": ("distill_spectrum", "times", "other_times")}
"""Settings that came later: where they have their default, a training is what it was before there were any."""

_IN_FINGERPRINT = (
    *("path", "memory_mb", "cache", "splits", "labels", "class_levels", "image_key", "label_key"),
    *("background", "range", "bad_files", "autoencoder", "latent_type"),
)
"""Data settings that act on the images alone, which the fingerprint covers."""


def training_key(settings: TrainerSettings, data: ImageData) -> str:
    """Return a digest of everything that decides the weights.

    Where the weights are computed, and by how many processes, is not part of it.
    """
    content = settings_json(settings)
    decisive = {group: dict(content[group]) for group in ("data", "network", "diffusion", "training")}
    for group, keys in (("data", _IN_FINGERPRINT), ("training", NO_EFFECT_ON_WEIGHTS)):
        for key in keys:
            del decisive[group][key]
    if settings.network.classes is None:
        del decisive["training"]["drop_labels"]
    defaults = settings_json(TrainerSettings())
    for group, later in _LATER.items():
        for key in later:
            if decisive[group][key] == defaults[group][key]:
                del decisive[group][key]
    if data.latents is not None:
        decisive["latents"] = {"autoencoder": data.latents.space.digest, "type": settings.data.latent_type}
    return hashlib.sha256(json.dumps([decisive, data.fingerprint], sort_keys=True).encode()).hexdigest()


def write_checkpoint(path: Path, state: TrainingState, key: str) -> None:
    """Write the state of the training that `training_key` names, atomically."""
    tensors: dict[str, Tensor] = {}
    averaged = dict(state.averaged.widest.named_parameters())
    for name, weights in state.parameters.items():
        # Adam creates its moments in the first step.
        moments = state.optimizer.state[weights] or {
            moment: torch.zeros_like(weights) for moment in ("exp_avg", "exp_avg_sq")
        }
        tensors |= {
            f"weights.{name}": weights.detach(),
            f"averaged.{name}": averaged[name].detach(),
            f"first.{name}": moments["exp_avg"],
            f"second.{name}": moments["exp_avg_sq"],
        }
    on_cpu = {name: value.cpu().contiguous() for name, value in tensors.items()}
    metadata = {"step": str(state.step), "made_from": key, "started_from": json.dumps(state.started_from)}
    metadata |= {"teacher": json.dumps(state.teacher), "rows": json.dumps(state.rows)}
    write_atomically(path, lambda beside: save_file(on_cpu, beside, metadata))


def read_checkpoint(path: Path, state: TrainingState, key: str) -> None:
    """Put the content of the checkpoint at `path` in the place of `state`'s.

    Raises InputError when the file is damaged, belongs to another training than `key`, or learnt from another teacher
    than `state`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a complete checkpoint: {error}; delete it to start over") from None
    if metadata.get("made_from") != key:
        raise InputError(
            f"{path} was made with other settings or data, or by a version of stepfront with other settings; "
            "restore those, train in another directory, or delete the file"
        )
    _check_teacher(path, json.loads(metadata.get("teacher", "null")), state.teacher)
    state.step = int(metadata["step"])
    state.started_from = json.loads(metadata.get("started_from", "null"))
    state.rows = json.loads(metadata.get("rows", "[]"))
    averaged = dict(state.averaged.widest.named_parameters())
    with torch.no_grad():
        for name, weights in state.parameters.items():
            weights.copy_(tensors[f"weights.{name}"])
            averaged[name].copy_(tensors[f"averaged.{name}"])
            # The fused optimizer needs moments in the layout of the weights, and the step on their device.
            fused = state.optimizer.defaults.get("fused")
            state.optimizer.state[weights] = {
                "step": torch.tensor(float(state.step), device=weights.device if fused else None),
                "exp_avg": torch.empty_like(weights).copy_(tensors[f"first.{name}"]),
                "exp_avg_sq": torch.empty_like(weights).copy_(tensors[f"second.{name}"]),
            }


def _check_teacher(path: Path, learnt_from: str | None, given: str | None) -> None:
    """Raise InputError when a checkpoint learnt from other weights than those that training.teacher has now.

    The key holds the teacher's folder alone.  Checkpoints of version 0.1 do not name their teacher's weights.
    """
    if learnt_from not in (None, given):
        raise InputError(
            f"{path} learnt from a teacher with digest {learnt_from[:12]}, and the one in training.teacher now has "
            f"{(given or 'none')[:12]}; restore the former, or train with the latter, in a folder of its own, in "
            "another directory"
        )


def step_of(path: Path) -> int:
    """Return the step of a checkpoint; -1 where the file is missing or damaged."""
    return int(_metadata(path).get("step", -1))


def rows_of(path: Path) -> list[dict[str, float]]:
    """Return the rows of training.parquet until a checkpoint; none where the file is missing, damaged or older."""
    found: list[dict[str, float]] = json.loads(_metadata(path).get("rows", "[]"))
    return found


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as content:
            return dict(content.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return {}
