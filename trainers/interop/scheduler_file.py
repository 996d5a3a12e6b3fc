"""Read a diffusers scheduler's own file: the noise schedule, the number of times, and what its network predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.validation import validate

SCHEDULER_FILE = "scheduler_config.json"

NOISE_SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        *("DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "DDIMInverse", "PNDM", "DEISMultistep", "UniPCMultistep"),
        *("DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSinglestep", "DPMSolverSDE", "SASolver"),
        *("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2Discrete"),
        *("KDPM2AncestralDiscrete", "RePaint", "UnCLIP"),
    )
)
"""Schedulers over a table of betas, whose networks are told the number of a time."""

OTHER_SCHEDULERS = {
    "Flow": "is for flow matching: its network predicts a velocity between image and noise",
    "EDM": "is for networks with EDM's preconditioning, which are told a noise level",
    "KarrasVe": "is variance-exploding",
    "ScoreSdeVe": "is variance-exploding",
    "ScoreSdeVp": "has continuous times",
    "CMStochastic": "is for consistency models, which predict the clean image in one step",
    "LCM": "is for consistency models",
    "TCD": "is for consistency models",
    "SCM": "is for consistency models",
    "VQDiffusion": "is for discrete tokens",
    "Amused": "is for discrete tokens",
}
"""What schedulers of other kinds are, by the beginnings of their names."""

_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}


def read_scheduler(path: Path) -> DiffusionSettings:
    """Return the noise schedule of a scheduler's file.

    Raises InputError for a schedule that stepfront does not have, and where the network does not predict noise.
    """
    config = read_json(path, "scheduler config")
    _check_kind(config, path)
    predicts = prediction_of(config)
    if predicts != "epsilon":
        raise InputError(f"{path}: the network predicts {predicts!r}; possible: 'epsilon'")
    schedule = config.get("beta_schedule", "linear")
    if schedule not in _SCHEDULES:
        raise InputError(f"{path}: beta_schedule is {schedule!r}; possible: {', '.join(_SCHEDULES)}")
    for key in ("trained_betas", "rescale_betas_zero_snr"):
        if config.get(key):
            raise InputError(f"{path}: {key} is {str(config[key])[:60]}; only betas of a beta_schedule are possible")
    given = {
        "schedule": _SCHEDULES[schedule],
        "steps": config.get("num_train_timesteps", 1000),
        "beta_first": config.get("beta_start", 1e-4),
        "beta_last": config.get("beta_end", 0.02),
    }
    try:
        return validate(DiffusionSettings, given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def prediction_of(config: dict[str, Any]) -> str:
    """Return what the network of a scheduler's config predicts, such as `epsilon`."""
    if config.get("use_flow_sigmas"):
        return "flow"
    old = "sample" if config.get("predict_epsilon") is False else "epsilon"  # the key of diffusers before 0.9
    return str(config.get("prediction_type", old))


def _check_kind(config: dict[str, Any], path: Path) -> None:
    name = str(config.get("_class_name", ""))
    if name in NOISE_SCHEDULERS:
        return
    if not name and any(key in config for key in ("beta_schedule", "beta_start", "prediction_type")):
        return
    known = next((what for begin, what in OTHER_SCHEDULERS.items() if name.startswith(begin)), "")
    what = f"which {known}" if known else "which has no betas that stepfront knows"
    raise InputError(
        f"{path} is the config of a {name or 'file without _class_name'}, {what}; a network that predicts noise "
        "('epsilon') under a schedule of betas is needed, as of DDPMScheduler or DDIMScheduler"
    )
