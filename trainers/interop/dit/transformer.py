"""Import a DiTTransformer2DModel folder of diffusers as a supernet, and export a supernet's full width as one.

Folders are read and written as files; diffusers itself is not needed.  Channels of learnt variances are left out: the
supernet predicts as many channels as the images have.
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
from stepfront.trainers.interop.channel_importance import arrange, permute
from stepfront.trainers.interop.diffusers_folder import CONFIG_FILE, clip_of, diffusion_of, find_parts, latent_space_of
from stepfront.trainers.interop.dit.inner_importance import inner_streams
from stepfront.trainers.interop.dit.transformer_config import Slim, config_of, deduce_settings, read_config
from stepfront.trainers.interop.dit.transformer_names import to_ours, to_theirs
from stepfront.trainers.interop.model_weights import WEIGHTS_FILE, files_digest, own_tensors, read_model
from stepfront.trainers.interop.round_trip import compare, run_in_diffusers
from stepfront.trainers.interop.scheduler_file import SCHEDULER_FILE, scheduler_config
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.dit import DiT
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet

POSITIONS = "pos_embed.pos_embed"
"""The table of positions, which some files hold; it is computed here."""


def import_dit(
    folder: Path,
    directory: Path,
    widths: tuple[float, ...] = WIDTHS,
    resolution: int | None = None,
    sort: bool = True,
    diffusion: DiffusionSettings | None = None,
    scheduler: Path | None = None,
    slim: Slim = "inner",
    say: Callable[[str], None] = lambda text: None,
) -> SupernetCard:
    """Write into `directory` a supernet whose widest network is that of the folder.

    With `sort`, heads and hidden channels of the MLPs are sorted by importance.  The scheduler's file, given or found
    beside the network, decides the noise schedule; `diffusion` replaces its betas.  `say` gets what was guessed and
    left out.

    Raises InputError for another `resolution` than the network's own, and for a network that stepfront's transformer
    can't equal.
    """
    parts = find_parts(Path(folder), scheduler)
    path = parts.network / CONFIG_FILE
    config = read_config(path)
    if resolution not in (None, config.sample_size):
        raise InputError(f"{path}: sample_size is {config.sample_size}, not {resolution}; leave out --resolution")
    diffusion = diffusion_of(parts, diffusion, say)
    source, files, content = read_model(parts.network)
    theirs = own_tensors(content, "pos_embed.proj.weight", source, say)
    theirs.pop(POSITIONS, None)
    settings = deduce_settings(config, theirs, widths, slim, path)
    if config.predicted_channels > config.in_channels:
        say(f"left out: the learnt variances, {config.in_channels} of {config.predicted_channels} predicted channels")
    try:
        weights = to_ours(theirs, settings, config.in_channels, source)
    except (RuntimeError, IndexError):
        raise InputError(f"{source}: the tensors have other shapes than {path} requires") from None
    supernet = assemble(settings, config.in_channels, config.sample_size, weights, source, diffusion)
    # Before the channels are sorted: that changes the tensors in place.
    labels = config.num_embeds_ada_norm + 1
    reference = run_in_diffusers(
        path, theirs, config.sample_size, diffusion.steps, say, "DiTTransformer2DModel", labels
    )
    orders = _sort(supernet) if sort else []
    if reference is not None:
        compare(supernet, reference, parts.network, say)
    made_with: dict[str, object] = {"imported": "diffusers", "sha256": files_digest(files), "sorted": sort}
    made_with |= {"null_class": "last"} | latent_space_of(parts, config.in_channels, say)
    made_with |= clip_of(parts, config.in_channels, say)
    card = save_imported(supernet, directory, diffusion, made_with)
    write_json(Path(directory) / ORIGIN_FILE, {"digest": card.digest, "orders": orders})
    return card


def _sort(supernet: Supernet) -> list[list[int]]:
    """Sort what narrow widths cut, and return where each channel was before."""
    found = inner_streams(_transformer(supernet))
    orders = [arrange(stream.importance, stream.cuts) for stream in found]
    permute(found, orders)
    return [order.tolist() for order in orders]


def check_dit(card: SupernetCard) -> None:
    """Raise InputError when the full width of a supernet can't be a DiTTransformer2DModel; needs no weights."""
    card.check_ungrouped("one model can't hold this supernet, which")
    config_of(card.network, card.image_channels, card.resolution)


def export_dit(source: Path, folder: Path) -> None:
    """Write the full-width network of the supernet in `source` as a DiTTransformer2DModel folder.

    A network that was imported and not trained since is exported bit for bit as it was, without learnt variances.
    Raises InputError for a network that a DiTTransformer2DModel can't equal.
    """
    supernet, card = load_supernet(Path(source))
    config = config_of(card.network, card.image_channels, card.resolution)
    network = _transformer(supernet)
    if (Path(source) / ORIGIN_FILE).exists():
        origin = read_json(Path(source) / ORIGIN_FILE, "origin of an import")
        if origin.get("digest") == card.digest and origin["orders"]:
            permute(inner_streams(network), [torch.tensor(order).argsort() for order in origin["orders"]])
    ours = {name: value.detach() for name, value in network.state_dict().items()}
    weights = to_theirs(ours, card.network, card.image_channels)
    folder, scheduler = Path(folder), scheduler_config(card.diffusion)
    write_atomically(folder / WEIGHTS_FILE, lambda path: save_file(weights, path, {"format": "pt"}))
    write_json(folder / SCHEDULER_FILE, scheduler)
    write_json(folder / CONFIG_FILE, config)


def _transformer(supernet: Supernet) -> DiT:
    assert isinstance(supernet.widest, DiT)
    return supernet.widest
