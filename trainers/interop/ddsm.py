"""Import a training checkpoint of DDSM (Yang et al. 2024, arXiv 2310.03337), with equal output at every width.

DDSM slices a layer by its numbers of inputs and outputs alone: the first rows and columns of its weights.  This is
`skips: prefix`.  What remains are names, and norms that keep their groups at every width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.files import file_digest
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.interop.assembly import assemble, save_imported
from stepfront.trainers.interop.model_weights import own_tensors
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.unet import sinusoid
from stepfront.trainers.validation import validate

WEIGHTS_KEY = "ema_model"
TIMES = "time_embedding.timembedding.0.weight"
WIDTHS = (0.25, 0.5, 0.75, 1.0)

NAMES = {
    "time_embedding.timembedding.1": "time.0",
    "time_embedding.timembedding.3": "time.2",
    "downblocks.": "down.",
    "middleblocks.": "middle.",
    "upblocks.": "up.",
    ".main.": ".conv.",
    ".block1.0.": ".norm1.",
    ".block1.2.": ".conv1.",
    ".temb_proj.1.": ".time.",
    ".block2.0.": ".norm2.",
    ".block2.3.": ".conv2.",
    ".attn.group_norm.": ".attention.norm.",
    ".attn.proj.": ".attention.out.",
}
"""Parts of a tensor's name, in DDSM and in stepfront."""


def import_ddsm(
    checkpoint: Path,
    directory: Path,
    widths: tuple[float, ...] = WIDTHS,
    resolution: int = 32,
    groups: int = 32,
    diffusion: DiffusionSettings | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> SupernetCard:
    """Write into `directory` a supernet with the averaged weights of a checkpoint of DDSM's main.py.

    The checkpoint does not contain the `resolution` of the images, the `groups` of its norms (32; 16 for its g16
    variant) and the betas of `diffusion`.  `say` gets what was guessed and left out.

    Raises InputError for another file and for widths that DDSM can't run.
    """
    content = read_checkpoint(Path(checkpoint), say)
    theirs = content[WEIGHTS_KEY]
    settings = deduce_settings(theirs, widths, resolution, groups, checkpoint)
    times = len(theirs[TIMES])
    if diffusion is None:
        say("guessed: linear betas from 0.0001 to 0.02, as in DDSM's code; give others with --betas")
    diffusion = (diffusion or DiffusionSettings()).model_copy(update={"steps": times})
    _check_times(theirs[TIMES], settings, checkpoint)
    supernet = assemble(settings, theirs["head.weight"].shape[1], resolution, translate(theirs, checkpoint), checkpoint)
    step = content.get("step")
    made_with = {
        "imported": "ddsm",
        "file": Path(checkpoint).name,
        "sha256": file_digest(checkpoint),
        "step": step if isinstance(step, int) else None,
    }
    return save_imported(supernet, directory, diffusion, made_with)


def read_checkpoint(path: Path, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Return the checkpoint's mapping, with tensors by name under `ema_model`; no code in the file is run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"no checkpoint at {path}") from None
    except Exception as error:  # torch.load raises a dozen kinds of errors for damaged files
        raise InputError(
            f"{path} is not a complete checkpoint that can be read without running code in it ({type(error).__name__})"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get(WEIGHTS_KEY), dict):
        keys = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path} has no {WEIGHTS_KEY!r}, which DDSM's checkpoints have; it holds {keys}")
    weights = own_tensors(content[WEIGHTS_KEY], "head.weight", path, say)
    for name in ("head.weight", "tail.2.weight", TIMES):
        if not isinstance(weights.get(name), Tensor):
            raise InputError(f"{path}: {WEIGHTS_KEY!r} has no tensor {name!r}; it is not DDSM's U-Net")
    return content | {WEIGHTS_KEY: weights}


def deduce_settings(
    weights: Mapping[str, Tensor], widths: tuple[float, ...], resolution: int, groups: int, source: Path
) -> NetworkSettings:
    """Return the network settings that fit tensors of these names and shapes."""
    base = weights["head.weight"].shape[0]
    blocks, multipliers, attention = [0], [0], set()
    position = 0
    while True:
        block = f"downblocks.{position}"
        if f"{block}.main.weight" in weights:
            blocks.append(0)
            multipliers.append(0)
        elif f"{block}.block1.2.weight" in weights:
            blocks[-1] += 1
            multipliers[-1] = weights[f"{block}.block1.2.weight"].shape[0] // base
            if f"{block}.attn.proj.weight" in weights:
                attention.add(resolution >> (len(blocks) - 1))
        else:
            break
        position += 1
    if len(set(blocks)) != 1:
        raise InputError(f"{source}: {blocks} residual blocks per level; possible: the same number at every level")
    given = {
        "base": base,
        "multipliers": multipliers,
        "blocks": blocks[0],
        "attention": sorted(attention, reverse=True),
        "dropout": 0.1,
        "groups": groups,
        "group_channels": 1,
        "widths": widths,
        "skips": "prefix",
        "frequencies": "ddsm",
    }
    try:
        settings = validate(NetworkSettings, given)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    _check_widths(settings)
    return settings


def _check_widths(settings: NetworkSettings) -> None:
    # DDSM rounds the outputs of linear maps to 16 and keeps its groups, so other widths crash in its own code.
    unit = math.lcm(16, settings.groups)
    for width in settings.widths:
        channels = round(settings.base * width)
        if channels % unit:
            possible = ", ".join(f"{n / settings.base:g}" for n in range(unit, settings.base + 1, unit)) or "none"
            raise InputError(
                f"width {width} of base {settings.base} is {channels} channels; DDSM's network with {settings.groups} "
                f"groups runs at multiples of {unit}: widths {possible}"
            )


def _check_times(table: Tensor, settings: NetworkSettings, source: Path) -> None:
    ours = sinusoid(torch.arange(len(table)), settings.base, settings.frequencies)
    if table.shape != ours.shape or not torch.allclose(table.float(), ours, atol=1e-3):
        raise InputError(f"{source}: {TIMES} is not the sinusoid of {settings.base} channels that DDSM uses")


def translate(weights: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return the tensors under stepfront's names; query, key and value become one tensor."""
    ours: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name == TIMES or re.search(r"\.attn\.proj_[kv]\.", name):
            continue
        if ".attn.proj_q." in name:
            parts = [weights.get(name.replace("proj_q", f"proj_{part}")) for part in "qkv"]
            if any(part is None for part in parts):
                raise InputError(f"{source}: {name} comes without its key or value")
            value = torch.cat([part for part in parts if part is not None])
            name = name.replace(".attn.proj_q.", ".attention.qkv.")
        for there, here in NAMES.items():
            name = name.replace(there, here)
        ours[name] = value
    return ours
