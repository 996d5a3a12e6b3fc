"""Import a UNet2DModel folder of diffusers as a supernet, and export a supernet's full width as one.

Folders are read and written as files; diffusers itself is not needed.  These parts map exactly: positional time
embedding, (Attn)DownBlock2D and (Attn)UpBlock2D, convolutions for up and down, SiLU, numbered classes, and channels
that are multiples of the first block's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from stepfront.errors import InputError
from stepfront.files import read_json, write_atomically, write_json
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.interop.assembly import ORIGIN_FILE, WIDTHS, assemble, save_imported
from stepfront.trainers.interop.channel_importance import restore_channels, sort_channels
from stepfront.trainers.interop.diffusers_folder import (
    CONFIG_FILE,
    clip_of,
    diffusion_of,
    find_parts,
    latent_space_of,
    side_of,
)
from stepfront.trainers.interop.model_weights import WEIGHTS_FILE, files_digest, own_tensors, read_model
from stepfront.trainers.interop.round_trip import compare, run_in_diffusers
from stepfront.trainers.interop.scheduler_file import SCHEDULER_FILE, scheduler_config
from stepfront.trainers.interop.unet2d_config import (
    NullClass,
    config_of,
    deduce_settings,
    read_config,
)
from stepfront.trainers.interop.unet2d_names import to_ours, to_theirs, with_modern_names
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.networks.unet import UNet, build_unet


def import_unet2d(
    folder: Path,
    directory: Path,
    widths: tuple[float, ...] = WIDTHS,
    resolution: int | None = None,
    sort: bool = True,
    diffusion: DiffusionSettings | None = None,
    null_class: NullClass | None = None,
    scheduler: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> SupernetCard:
    """Write into `directory` a supernet whose widest network is that of the folder.

    With `sort`, its channels are sorted by importance.  `resolution` is needed when the config has no sample_size.
    The scheduler's file, given or found beside the network, decides the noise schedule; `diffusion` replaces its betas.
    `null_class` is needed where there are classes.  With "none", guidance other than 1 is refused until a training has
    dropped labels.  `say` gets what was guessed and left out.

    Raises InputError for another kind of folder, for a prediction that stepfront does not know, and for a network that
    its U-Net can't equal.
    """
    parts = find_parts(Path(folder), scheduler)
    folder = parts.network
    config = read_config(folder / CONFIG_FILE)
    resolution = resolution or side_of(config.sample_size, folder / CONFIG_FILE)
    settings = deduce_settings(config, widths, resolution, null_class, folder / CONFIG_FILE)
    diffusion = diffusion_of(parts, diffusion, say)
    with torch.device("meta"):
        skeleton = build_unet(settings, config.in_channels, resolution, 1.0)
    source, files, content = read_model(folder)
    theirs = with_modern_names(own_tensors(content, "conv_in.weight", source, say))
    weights = to_ours(skeleton, settings, theirs, config.flip_sin_to_cos, null_class == "none", source)
    supernet = assemble(settings, config.in_channels, resolution, weights, source, diffusion)
    # Before the channels are sorted: that changes the tensors in place.
    reference = run_in_diffusers(folder / CONFIG_FILE, theirs, resolution, diffusion.steps, say)
    orders = sort_channels(_unet(supernet.widest)) if sort else []
    if reference is not None:
        compare(supernet, reference, folder, say)
    made_with: dict[str, object] = {"imported": "diffusers", "sha256": files_digest(files), "sorted": sort}
    made_with |= {"null_class": null_class} if null_class else {}
    made_with |= latent_space_of(parts, config.in_channels, say) | clip_of(parts, config.in_channels, say)
    card = save_imported(supernet, directory, diffusion, made_with)
    origin = {"digest": card.digest, "flip_sin_to_cos": config.flip_sin_to_cos, "orders": orders}
    write_json(Path(directory) / ORIGIN_FILE, origin)
    return card


def check_unet2d(card: SupernetCard) -> None:
    """Raise InputError when the full width of a supernet can't be a UNet2DModel; needs no weights."""
    card.check_ungrouped("one model can't hold this supernet, which")
    with torch.device("meta"):
        network = build_backbone(card.network, card.image_channels, card.resolution, 1.0)
    config_of(_unet(network), card.network, card.image_channels, card.resolution)


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
    folder, scheduler = Path(folder), scheduler_config(card.diffusion)
    write_atomically(folder / WEIGHTS_FILE, lambda path: save_file(weights, path, {"format": "pt"}))
    # Without it, whoever reads the folder has to guess what the network predicts.
    write_json(folder / SCHEDULER_FILE, scheduler)
    write_json(folder / CONFIG_FILE, config)


def _unet(network: torch.nn.Module) -> UNet:
    if type(network) is not UNet:  # a subclass has other blocks
        raise InputError(
            f"a {type(network).__name__} is not the U-Net of family unet, so it can't be a UNet2DModel; possible: "
            "--as torch-export, or --as dit for family dit"
        )
    return network
