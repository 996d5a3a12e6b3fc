"""Read a diffusers scheduler's own file: the noise schedule, the number of times, and what its network predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.noise_schedule import EDM_SIGMAS
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

FLOW_SCHEDULERS = frozenset({"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"})
"""Schedulers of rectified flow, whose networks predict the velocity between image and noise."""

EDM_SCHEDULERS = frozenset({"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"})
"""Schedulers of networks with EDM's preconditioning, which are told a noise level."""

OTHER_SCHEDULERS = {
    "Flow": "is for another kind of flow matching",
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


_CLIPS = ("DDPM", "DDIM", "RePaint", "UnCLIP", "Heun", "LCM")
"""Beginnings of the classes that read clip_sample: diffusers keeps keys of other classes in files, and ignores them."""

_THRESHOLDS = ("DDPM", "DDIM", "DEIS", "DPMSolver", "EDMDPMSolver", "LCM", "SASolver", "UniPC")
"""Beginnings of the classes that read thresholding; DDIMInverse does not."""

_CLIPS_BY_DEFAULT = ("DDPM", "DDIM", "RePaint", "UnCLIP")
"""Beginnings of the classes whose clip_sample is true where the file does not say it."""

_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}
_FLOW = ("flow", "flow_prediction")


def read_scheduler(path: Path) -> DiffusionSettings:
    """Return the noise schedule of a scheduler's file, and what its network predicts.

    Raises InputError for a schedule or a prediction that stepfront does not have.
    """
    config = read_json(path, "scheduler config")
    kind, predicts = _kind_of(config, path), prediction_of(config)
    if kind == "edm":
        given = _edm(config, predicts, path)
    elif kind == "flow" or predicts in _FLOW:
        given = _flow(config, path)
    else:
        given = _betas(config, predicts, path)
    try:
        return validate(DiffusionSettings, given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _flow(config: dict[str, Any], path: Path) -> dict[str, Any]:
    if config.get("invert_sigmas"):
        raise InputError(f"{path}: invert_sigmas is set; possible: flows whose time 0 is the image")
    shift = config.get("shift", config.get("flow_shift", 1.0))
    times = config.get("num_train_timesteps", 1000)
    return {"schedule": "flow", "prediction": "flow", "steps": times, "shift": shift}


def _edm(config: dict[str, Any], predicts: str, path: Path) -> dict[str, Any]:
    if predicts != "epsilon":
        raise InputError(f"{path}: the network predicts {predicts!r} with EDM's preconditioning; possible: 'epsilon'")
    levels = config.get("sigma_min", EDM_SIGMAS[0]), config.get("sigma_max", EDM_SIGMAS[1])
    if levels != EDM_SIGMAS:
        raise InputError(f"{path}: sigma_min and sigma_max are {levels[0]} and {levels[1]}; possible: 0.002 and 80")
    times, std = config.get("num_train_timesteps", 1000), config.get("sigma_data", 0.5)
    return {"schedule": "edm", "prediction": "edm", "steps": times, "data_std": std}


def _betas(config: dict[str, Any], predicts: str, path: Path) -> dict[str, Any]:
    if predicts not in _PREDICTIONS:
        possible = ", ".join(map(repr, (*_PREDICTIONS, *_FLOW[1:])))
        raise InputError(f"{path}: the network predicts {predicts!r}; possible: {possible}")
    schedule = config.get("beta_schedule", "linear")
    if schedule not in _SCHEDULES:
        raise InputError(f"{path}: beta_schedule is {schedule!r}; possible: {', '.join(_SCHEDULES)}")
    for key in ("trained_betas", "rescale_betas_zero_snr"):
        if config.get(key):
            raise InputError(f"{path}: {key} is {str(config[key])[:60]}; only betas of a beta_schedule are possible")
    return {
        "schedule": _SCHEDULES[schedule],
        "prediction": _PREDICTIONS[predicts],
        "steps": config.get("num_train_timesteps", 1000),
        "beta_first": config.get("beta_start", 1e-4),
        "beta_last": config.get("beta_end", 0.02),
    }


def clipping_of(path: Path) -> Literal["none", "unit", "other"]:
    """Return how a scheduler clamps predictions of the clean image: not at all, to [-1, 1], or in another way.

    `clip_sample` clamps to +-`clip_sample_range`.  `thresholding` goes before it where a class has both: it clamps to
    a quantile of the pixels and divides by it (Saharia et al. 2022, section 2.3); that is [-1, 1] where
    `sample_max_value` is 1.
    """
    config = read_json(path, "scheduler config")
    name = str(config.get("_class_name", ""))
    if config.get("thresholding") and name.startswith(_THRESHOLDS) and not name.startswith("DDIMInverse"):
        return "unit" if config.get("sample_max_value", 1.0) == 1 else "other"
    if not name.startswith(_CLIPS) or not config.get("clip_sample", name.startswith(_CLIPS_BY_DEFAULT)):
        return "none"
    return "unit" if config.get("clip_sample_range", 1.0) == 1 else "other"


def scheduler_config(diffusion: DiffusionSettings) -> dict[str, Any]:
    """Return the config of a diffusers scheduler for networks of these settings; `read_scheduler` gives them back."""
    times: dict[str, Any] = {"num_train_timesteps": diffusion.steps}
    if diffusion.prediction == "flow" and diffusion.schedule == "flow":
        return {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": diffusion.shift} | times
    if diffusion.prediction == "edm" and diffusion.schedule == "edm":
        levels = dict(zip(("sigma_min", "sigma_max"), EDM_SIGMAS, strict=True))
        return {"_class_name": "EDMEulerScheduler", "sigma_data": diffusion.data_std} | levels | times
    theirs = {ours: name for name, ours in _PREDICTIONS.items()}
    shapes = {ours: name for name, ours in _SCHEDULES.items()}
    if diffusion.prediction not in theirs or diffusion.schedule not in shapes:
        raise InputError(
            f"no scheduler of diffusers has schedule {diffusion.schedule!r} with prediction {diffusion.prediction!r}; "
            "flow and edm go with the schedule of that name"
        )
    return {
        "_class_name": "DDIMScheduler",
        "beta_schedule": shapes[diffusion.schedule],
        "beta_start": diffusion.beta_first,
        "beta_end": diffusion.beta_last,
        "prediction_type": theirs[diffusion.prediction],
        "clip_sample": False,
        "timestep_spacing": "trailing",
    } | times


def prediction_of(config: dict[str, Any]) -> str:
    """Return what the network of a scheduler's config predicts, such as `epsilon`."""
    if config.get("use_flow_sigmas"):
        return "flow"
    old = "sample" if config.get("predict_epsilon") is False else "epsilon"  # the key of diffusers before 0.9
    return str(config.get("prediction_type", old))


def _kind_of(config: dict[str, Any], path: Path) -> Literal["betas", "flow", "edm"]:
    name = str(config.get("_class_name", ""))
    if name in FLOW_SCHEDULERS:
        return "flow"
    if name in EDM_SCHEDULERS:
        return "edm"
    if name in NOISE_SCHEDULERS:
        return "betas"
    if not name and any(key in config for key in ("beta_schedule", "beta_start", "prediction_type")):
        return "betas"
    known = next((what for begin, what in OTHER_SCHEDULERS.items() if name.startswith(begin)), "")
    what = f"which {known}" if known else "which has no betas that stepfront knows"
    raise InputError(
        f"{path} is the config of a {name or 'file without _class_name'}, {what}; a scheduler of betas "
        "(DDPMScheduler, DDIMScheduler and others), of rectified flow or of EDM is needed"
    )
