"""Import a folder of diffusers by the class of its network: a UNet2DModel, one that reads text, or a transformer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.interop.assembly import WIDTHS
from stepfront.trainers.interop.diffusers_folder import find_parts
from stepfront.trainers.interop.dit.transformer import import_dit
from stepfront.trainers.interop.dit.transformer_config import Slim
from stepfront.trainers.interop.prompted.unet2d_condition import import_unet2d_condition
from stepfront.trainers.interop.unet2d import import_unet2d
from stepfront.trainers.interop.unet2d_config import NullClass
from stepfront.trainers.networks.card import SupernetCard


def import_diffusers(
    folder: Path,
    directory: Path,
    widths: tuple[float, ...] = WIDTHS,
    resolution: int | None = None,
    sort: bool = True,
    diffusion: DiffusionSettings | None = None,
    null_class: NullClass | None = None,
    scheduler: Path | None = None,
    slim: Slim | None = None,
    conditions: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    prompts: Path | None = None,
) -> SupernetCard:
    """Write into `directory` a supernet whose widest network is that of the folder.

    `null_class` is for UNet2DModels, `slim` for transformers (default: inner), and `conditions` or `prompts` for
    networks that read text, which have one width.  The rest is as in `import_unet2d`, `import_dit` and
    `import_unet2d_condition`, whose errors these are.
    """
    parts = find_parts(Path(folder), scheduler)
    if not parts.is_dit and slim is not None:
        raise InputError(f"{folder}: --slim {slim} is for transformers, and this is none; leave it out")
    if parts.reads_text:
        if null_class is not None:
            raise InputError(f"{folder}: the empty prompt is its null class; leave out --null-class {null_class}")
        _check_as_it_is(folder, widths, sort)
        say("it reads text, so it keeps its one width; what is searched are times, solver, guidance and reuse")
        return import_unet2d_condition(folder, directory, conditions, resolution, diffusion, scheduler, say, prompts)
    for option, given in {"--conditions": conditions, "--prompts": prompts}.items():
        if given is not None:
            raise InputError(f"{folder}: {option} is for networks that read text, and this one does not; leave it out")
    if not parts.is_dit:
        return import_unet2d(folder, directory, widths, resolution, sort, diffusion, null_class, scheduler, say)
    if null_class == "none":
        raise InputError(f"{folder}: the last class of a transformer is its null class; leave out --null-class none")
    return import_dit(folder, directory, widths, resolution, sort, diffusion, scheduler, slim or "inner", say)


def _check_as_it_is(folder: Path, widths: tuple[float, ...], sort: bool) -> None:
    """Raise InputError for what only networks of several widths have."""
    if widths not in (WIDTHS, (1.0,)):
        given = ",".join(f"{width:g}" for width in widths)
        raise InputError(f"{folder}: it reads text, so its one width is 1; leave out --widths {given}")
    if not sort:
        raise InputError(f"{folder}: it reads text, and its channels are not sorted; leave out --no-sort")
