"""Find the parts of a model in a folder of diffusers: a pipeline's, a training's, or that of a UNet2DModel alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.trainers.interop.scheduler_file import SCHEDULER_FILE

CONFIG_FILE, PIPELINE_FILE = "config.json", "model_index.json"


@dataclass(frozen=True)
class ModelFolder:
    """The folder of a UNet2DModel, and the file of the scheduler that it was trained with (None: there is none)."""

    unet: Path
    scheduler: Path | None


def find_parts(folder: Path, scheduler: Path | None = None) -> ModelFolder:
    """Return where the network and its scheduler are.

    `scheduler` is a file or a folder with one, and goes before what is found.  Raises InputError for a pipeline of
    another kind, such as one in a latent space, and for a pipeline without its scheduler.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file; give the folder with {CONFIG_FILE} that save_pretrained writes")
    pipeline = next((one for one in (folder, folder.resolve().parent) if (one / PIPELINE_FILE).is_file()), None)
    if pipeline is not None:
        _check_pipeline(read_json(pipeline / PIPELINE_FILE, "pipeline's index"), pipeline / PIPELINE_FILE)
    unet = folder / "unet" if pipeline == folder else folder
    if not (unet / CONFIG_FILE).exists():
        inner = [name for name in ("unet", "unet_ema") if (folder / name / CONFIG_FILE).exists()]
        if inner and unet == folder:
            possible = " or ".join(str(folder / name) for name in inner)
            raise InputError(f"no UNet2DModel config at {unet / CONFIG_FILE}; give {possible}")
    given = None if scheduler is None else _scheduler_in(scheduler)
    if scheduler is not None and given is None:
        raise InputError(f"no {SCHEDULER_FILE} at {scheduler}; give a scheduler's file or folder")
    found = given or _scheduler_near(folder.resolve())
    if pipeline is not None and found is None:
        raise InputError(f"no scheduler/{SCHEDULER_FILE} in {pipeline}; give that of its training with --scheduler")
    return ModelFolder(unet, found)


def _scheduler_in(place: Path) -> Path | None:
    for one in (place, place / SCHEDULER_FILE, place / "scheduler" / SCHEDULER_FILE):
        if one.is_file():
            return one
    return None


def _scheduler_near(folder: Path) -> Path | None:
    """Return the scheduler in a folder, beside it, or beside the folder of a training's checkpoint."""
    places = [folder, folder.parent]
    if folder.parent.name.startswith("checkpoint"):
        places.append(folder.parent.parent)
    return next((file for place in places if (file := _scheduler_in(place)) is not None), None)


def _check_pipeline(index: dict[str, object], path: Path) -> None:
    name = index.get("_class_name", "pipeline")
    parts = {key: value[1] for key, value in index.items() if isinstance(value, list) and len(value) == 2 and value[1]}
    latent = next((parts[key] for key in ("vae", "vqvae", "movq", "first_stage") if key in parts), None)
    if latent is not None:
        raise InputError(f"{path}: a {name} works in the latent space of its {latent}; a network of pixels is needed")
    network = parts.get("unet")
    if network is None:
        others = ", ".join(f"{key} ({value})" for key, value in sorted(parts.items())) or "nothing"
        raise InputError(f"{path}: a {name} has no unet; it holds {others}; only UNet2DModel can be imported")
