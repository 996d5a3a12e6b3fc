"""Find the parts of a model in a folder of diffusers: a pipeline's, a training's, or that of a network alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.interop.scheduler_file import SCHEDULER_FILE, clipping_of, read_scheduler

CONFIG_FILE, PIPELINE_FILE = "config.json", "model_index.json"

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
"""Classes of autoencoders that can be loaded."""

DIT_CLASSES = frozenset({"DiTTransformer2DModel", "Transformer2DModel"})
"""Classes of DiTs: today's, and that of the first published ones."""


@dataclass(frozen=True)
class ModelFolder:
    """The folder of a network, and what was trained with it: the scheduler's file and the autoencoder's folder.

    `pipeline` is the folder with model_index.json that all of them are in.
    """

    network: Path
    scheduler: Path | None = None
    autoencoder: Path | None = None
    pipeline: Path | None = None

    @property
    def is_dit(self) -> bool:
        """Whether the network is a diffusion transformer, by the name of its class."""
        return self._class in DIT_CLASSES

    @property
    def reads_text(self) -> bool:
        """Whether the network is a U-Net with cross-attention, by the name of its class."""
        return self._class == "UNet2DConditionModel"

    @property
    def _class(self) -> object:
        config = self.network / CONFIG_FILE
        return read_json(config, "network's config").get("_class_name") if config.is_file() else None


def find_parts(folder: Path, scheduler: Path | None = None) -> ModelFolder:
    """Return where the network and its scheduler are.

    `scheduler` is a file or a folder with one, and goes before what is found.  Raises InputError for a pipeline of
    another kind, and for a pipeline without its scheduler or its autoencoder.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file; give the folder with {CONFIG_FILE} that save_pretrained writes")
    pipeline = next((one for one in (folder, folder.resolve().parent) if (one / PIPELINE_FILE).is_file()), None)
    name, autoencoder = "unet", None
    if pipeline is not None:
        index = read_json(pipeline / PIPELINE_FILE, "pipeline's index")
        name = _network_of(index, pipeline / PIPELINE_FILE)
        autoencoder = _autoencoder_of(index, pipeline)
    unet = folder / name if pipeline == folder else folder
    if not (unet / CONFIG_FILE).exists():
        inner = [name for name in ("unet", "unet_ema") if (folder / name / CONFIG_FILE).exists()]
        if inner and unet == folder:
            possible = " or ".join(str(folder / name) for name in inner)
            raise InputError(f"no network's config at {unet / CONFIG_FILE}; give {possible}")
    given = None if scheduler is None else _scheduler_in(scheduler)
    if scheduler is not None and given is None:
        raise InputError(f"no {SCHEDULER_FILE} at {scheduler}; give a scheduler's file or folder")
    found = given or _scheduler_near(folder.resolve())
    if pipeline is not None and found is None:
        raise InputError(f"no scheduler/{SCHEDULER_FILE} in {pipeline}; give that of its training with --scheduler")
    return ModelFolder(unet, found, autoencoder, pipeline)


def diffusion_of(parts: ModelFolder, given: DiffusionSettings | None, say: Callable[[str], None]) -> DiffusionSettings:
    """Return the noise schedule that a network was trained with; `given` replaces the betas of the scheduler's file."""
    if parts.scheduler is None:
        used = given or DiffusionSettings()
        say(
            f"guessed: there is no scheduler beside {parts.network}, so the network is taken to predict noise "
            f"(epsilon) at {used.steps} times with linear betas from {used.beta_first:g} to {used.beta_last:g}; if "
            "that is wrong, give its scheduler_config.json with --scheduler"
        )
        return used
    found = read_scheduler(parts.scheduler)
    if given is None:
        return found
    if found.schedule in ("flow", "edm"):
        raise InputError(f"{parts.scheduler} has the schedule {found.schedule}, which has no betas; leave out --betas")
    return found.model_copy(update={key: getattr(given, key) for key in ("schedule", "beta_first", "beta_last")})


def side_of(sample_size: object, path: Path) -> int:
    """Return the side of square images by the sample_size of the config in `path`, one number or two.

    Raises InputError for any other size.
    """
    sides = list(sample_size) if isinstance(sample_size, list | tuple) else [sample_size]
    side = sides[0] if sides and all(one == sides[0] for one in sides) else None
    if not isinstance(side, int):
        raise InputError(f"{path}: sample_size is {sample_size!r}; set the side of the images with --resolution")
    return side


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


def latent_space_of(parts: ModelFolder, channels: int, say: Callable[[str], None]) -> dict[str, object]:
    """Return where the autoencoder of a network's latents is, and what images it encodes; empty without one.

    `latent_pixels` is how many pixels a latent has on a side, and `pixel_channels` what an image has.
    """
    if parts.autoencoder is None:
        if channels not in (1, 3):
            say(f"the network reads {channels} channels, so it works on latents; name their autoencoder in config.yaml")
        return {}
    config = read_json(parts.autoencoder / CONFIG_FILE, "autoencoder's config")
    blocks = config.get("block_out_channels") or config.get("encoder_block_out_channels")
    halvings = len(blocks) - 1 if isinstance(blocks, list) else 3
    found = {"autoencoder": str(parts.autoencoder), "latent_pixels": 2**halvings}
    return found | {"pixel_channels": config.get("in_channels", 3)}


def clip_of(parts: ModelFolder, channels: int, say: Callable[[str], None]) -> dict[str, object]:
    """Return `clip_sample` where the scheduler clamps predicted images to [-1, 1]; what can't be had is said.

    Latents are not clamped, although pipelines of diffusers do so where the scheduler says it: they exceed [-1, 1].
    """
    clipping = "none" if parts.scheduler is None else clipping_of(parts.scheduler)
    if clipping == "none":
        return {}
    if parts.autoencoder is not None or channels not in (1, 3):
        say(
            f"left out: {parts.scheduler} clamps predictions (clip_sample, thresholding), and what has {channels} "
            "channels is taken for latents, which are not clamped; sampler.clip=true clamps pixels"
        )
        return {}
    if clipping == "other":
        say(
            f"left out: {parts.scheduler} clamps predictions by thresholding or a clip_sample_range, which stepfront "
            "does not have; sampler.clip=true clamps them to [-1, 1]"
        )
        return {}
    say(
        f"{parts.scheduler} clamps predicted images to [-1, 1] (clip_sample or thresholding), so config.yaml has "
        "sampler.clip: true"
    )
    return {"clip_sample": True}


def parts_of(index: dict[str, object]) -> dict[str, str]:
    """Return the classes of a pipeline's parts."""
    return {key: value[1] for key, value in index.items() if isinstance(value, list) and len(value) == 2 and value[1]}


def _network_of(index: dict[str, object], path: Path) -> str:
    """Return the folder of a pipeline's network: unet, or transformer where that is a DiT."""
    name, parts = index.get("_class_name", "pipeline"), parts_of(index)
    if parts.get("transformer") in DIT_CLASSES and "text_encoder" not in parts:
        return "transformer"
    network = parts.get("unet")
    if network is None:
        others = ", ".join(f"{key} ({value})" for key, value in sorted(parts.items())) or "nothing"
        raise InputError(
            f"{path}: a {name} has no unet; it holds {others}; only a UNet2DModel, "
            "a UNet2DConditionModel or a DiTTransformer2DModel can be imported"
        )
    return "unet"


def _autoencoder_of(index: dict[str, object], pipeline: Path) -> Path | None:
    """Return the folder of a pipeline's autoencoder; None for a pipeline of pixels.

    Raises InputError for one of another class, and for a folder without it.
    """
    parts = parts_of(index)
    for key in ("vae", "vqvae", "movq", "first_stage"):
        if key not in parts:
            continue
        if parts[key] not in AUTOENCODERS:
            raise InputError(
                f"{pipeline / PIPELINE_FILE}: the pipeline works in the latent space of its {key}, a {parts[key]}; "
                f"possible: {', '.join(AUTOENCODERS)}"
            )
        if not (pipeline / key / CONFIG_FILE).is_file():
            raise InputError(
                f"{pipeline / PIPELINE_FILE} names the autoencoder {key} ({parts[key]}), and there is no "
                f"{pipeline / key / CONFIG_FILE}; copy the pipeline's folder again"
            )
        return pipeline / key
    return None
