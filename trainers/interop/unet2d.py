"""Import a UNet2DModel folder of diffusers as a supernet, and export a supernet's full width as one.

Folders are read and written as files; diffusers itself is not needed.  These parts map exactly: positional time
embedding, (Attn)DownBlock2D and (Attn)UpBlock2D, convolutions for up and down, SiLU, numbered classes, and channels
that are multiples of the first block's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from stepfront.errors import InputError
from stepfront.files import file_digest, read_json, write_atomically, write_json
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.interop.assembly import assemble, save_imported
from stepfront.trainers.interop.channel_importance import restore_channels, sort_channels
from stepfront.trainers.interop.unet2d_config import (
    NullClass,
    UNet2DConfig,
    config_of,
    deduce_settings,
    read_config,
    read_schedule,
)
from stepfront.trainers.interop.unet2d_names import to_ours, to_theirs
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.networks.unet import UNet, build_unet
from stepfront.trainers.networks.weights import read_weights

CONFIG_FILE, WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"
ORIGIN_FILE = "origin.json"
WIDTHS = (0.25, 0.5, 0.75, 1.0)


def import_unet2d(
    folder: Path,
    directory: Path,
    widths: tuple[float, ...] = WIDTHS,
    resolution: int | None = None,
    sort: bool = True,
    diffusion: DiffusionSettings | None = None,
    null_class: NullClass | None = None,
) -> SupernetCard:
    """Write into `directory` a supernet whose widest network is that of the folder.

    With `sort`, its channels are sorted by importance.  `resolution` is needed when the config has no sample_size; a
    pipeline's folder contains its noise schedule.  `null_class` is needed where there are classes.  With "none",
    guidance other than 1 is refused until a training has dropped labels.

    Raises InputError for another kind of folder, and for a network that stepfront's U-Net can't equal.
    """
    folder = Path(folder)
    if (folder / "model_index.json").exists():
        diffusion = diffusion or read_schedule(folder / "scheduler" / "scheduler_config.json")
        folder = folder / "unet"
    config = read_config(folder / CONFIG_FILE)
    resolution = resolution or _resolution(config, folder / CONFIG_FILE)
    settings = deduce_settings(config, widths, resolution, null_class, folder / CONFIG_FILE)
    source = folder / WEIGHTS_FILE
    with torch.device("meta"):
        skeleton = build_unet(settings, config.in_channels, resolution, 1.0)
    theirs, lacks_null = _read_weights(folder), null_class == "none"
    weights = to_ours(skeleton, settings, theirs, config.flip_sin_to_cos, lacks_null, source)
    supernet = assemble(settings, config.in_channels, resolution, weights, source)
    orders = sort_channels(_unet(supernet.widest)) if sort else []
    made_with = {"imported": "diffusers", "sha256": file_digest(source), "sorted": sort}
    if null_class:
        made_with["null_class"] = null_class
    card = save_imported(supernet, directory, diffusion or DiffusionSettings(), made_with)
    origin = {"digest": card.digest, "flip_sin_to_cos": config.flip_sin_to_cos, "orders": orders}
    write_json(Path(directory) / ORIGIN_FILE, origin)
    return card


def export_unet2d(source: Path, folder: Path) -> None:
    """Write the full-width network of the supernet in `source` as a UNet2DModel folder.

    A network that was imported and not trained since is exported bit for bit as it was.
    Raises InputError when the network's norms differ in their groups, which a UNet2DModel's can't.
    """
    supernet, card = load_supernet(Path(source))
    network, flip = _unet(supernet.widest), True
    if (Path(source) / ORIGIN_FILE).exists():
        origin = read_json(Path(source) / ORIGIN_FILE, "origin of an import")
        if origin.get("digest") == card.digest:
            flip = bool(origin["flip_sin_to_cos"])
            if origin["orders"]:
                restore_channels(network, origin["orders"])
    config = config_of(network, card.network, card.image_channels, card.resolution) | {"flip_sin_to_cos": flip}
    weights = {name: value.contiguous() for name, value in to_theirs(network, card.network, flip).items()}
    if card.made_with.get("null_class") == "none":  # as imported: the null class was added by the import
        config["num_class_embeds"] -= 1
        weights["class_embedding.weight"] = weights["class_embedding.weight"][:-1].clone()
    folder = Path(folder)
    write_atomically(folder / WEIGHTS_FILE, lambda path: save_file(weights, path, {"format": "pt"}))
    write_json(folder / CONFIG_FILE, config)


def _resolution(config: UNet2DConfig, path: Path) -> int:
    size = config.sample_size
    sides = {size} if isinstance(size, int) else set(size or ())
    if len(sides) != 1:
        raise InputError(f"{path}: sample_size is {size!r}; set the side of the images with --resolution")
    return sides.pop()


def _read_weights(folder: Path) -> dict[str, Tensor]:
    if not (folder / WEIGHTS_FILE).exists():
        found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise InputError(f"no {WEIGHTS_FILE} in {folder}; found: {found}; save_pretrained writes the file")
    return read_weights(folder / WEIGHTS_FILE)


def _unet(network: torch.nn.Module) -> UNet:
    if not isinstance(network, UNet):
        raise InputError(f"a {type(network).__name__} is not a U-Net, so it can't be a UNet2DModel")
    return network
