"""Import a UNet2DConditionModel of diffusers as it is, with one width, on prompts that are encoded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepfront.errors import InputError
from stepfront.files import file_digest, read_json
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.interop.assembly import assemble, save_imported
from stepfront.trainers.interop.diffusers_folder import (
    CONFIG_FILE,
    ModelFolder,
    clip_of,
    diffusion_of,
    find_parts,
    latent_space_of,
    side_of,
)
from stepfront.trainers.interop.model_weights import files_digest, find_weights, own_tensors, read_model
from stepfront.trainers.interop.prompted.condition_file import Conditions, read_conditions
from stepfront.trainers.interop.prompted.prompt_encoder import encode_prompts, tokenize_prompts
from stepfront.trainers.network_families.unet2d_condition import check_config, plain_config
from stepfront.trainers.network_settings import PROMPTED, NetworkSettings
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.weights import weights_digest
from stepfront.trainers.validation import validate


def import_unet2d_condition(
    folder: Path,
    directory: Path,
    conditions: Path | None,
    resolution: int | None = None,
    diffusion: DiffusionSettings | None = None,
    scheduler: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    prompts: Path | None = None,
) -> SupernetCard:
    """Write into `directory` a supernet of one width: the folder's network, on prompts.

    Their text encoder's outputs are in the file `conditions`, or are made here of the lines of `prompts`.

    The prompts are its classes, and the empty prompt its null class.  `resolution` is needed when the config has no
    sample_size.  The scheduler's file decides the noise schedule; `diffusion` replaces its betas.  `say` gets what was
    guessed and left out.

    Raises InputError for a network that reads more than image, time and text, and for prompts that do not fit it.
    """
    parts = find_parts(Path(folder), scheduler)
    path = parts.network / CONFIG_FILE
    config = plain_config(read_json(path, "network's config"))
    check_config(config, str(path))
    texts, of_texts = _conditions(parts, conditions, prompts, config["cross_attention_dim"], say)
    side = resolution or side_of(config["sample_size"], path)
    own = {"config": config, "tokens": texts.table.shape[1]}
    given: dict[str, Any] = {"family": PROMPTED, "widths": [1.0], "classes": len(texts.texts), PROMPTED: own}
    settings = validate(NetworkSettings, given)
    diffusion = diffusion_of(parts, diffusion, say)
    source, files, tensors = read_model(parts.network)
    theirs = own_tensors(tensors, "conv_in.weight", source, say)
    weights = {f"unet.{name}": value for name, value in theirs.items()} | {"prompts": texts.table}
    supernet = assemble(settings, config["in_channels"], side, weights, source, diffusion)
    made_with: dict[str, object] = {"imported": "diffusers", "sha256": files_digest(files), "null_class": "last"}
    made_with |= of_texts | latent_space_of(parts, supernet.image_channels, say)
    made_with |= clip_of(parts, supernet.image_channels, say)
    return save_imported(supernet, directory, diffusion, made_with, texts.texts)


def _conditions(
    parts: ModelFolder, conditions: Path | None, prompts: Path | None, channels: int, say: Callable[[str], None]
) -> tuple[Conditions, dict[str, object]]:
    """Return the encoded prompts, and the digests that say what they were made of."""
    if prompts is None:
        found = read_conditions(conditions, channels, parts.network)
        assert conditions is not None
        return found, {"conditions": file_digest(conditions)}
    if conditions is not None:
        raise InputError(f"--prompts {prompts} and --conditions {conditions} both give the prompts; leave one out")
    tokenized = tokenize_prompts(prompts, parts.pipeline, channels, parts.network, say)
    find_weights(parts.network)  # before the encoding, which may take minutes
    encoded, files = encode_prompts(tokenized, say)
    made_of: dict[str, object] = {"prompts": file_digest(prompts), "text_encoder": files_digest(files)}
    return encoded, made_of | {"conditions": weights_digest({"table": encoded.table})}
