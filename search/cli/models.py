"""Define the verbs that exchange models with other programs: import and export."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stepfront.errors import InputError
from stepfront.search.cli.terminal import Point, Search

if TYPE_CHECKING:
    from stepfront.trainers.config import DiffusionSettings
    from stepfront.trainers.networks.card import SupernetCard

import_app = typer.Typer(
    help="Convert a model that was trained elsewhere into a supernet.",
    epilog="Example: stepfront import diffusers ddpm-cifar10-32 --out runs/ddpm/start",
)
CONFIG_FILE = "config.yaml"
FULL_WIDTH_ALONE = ("unet2d", "dit")
FORMS = ("program", "torch-export", "onnx", "pipeline", *FULL_WIDTH_ALONE)

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="directory to create")]
Widths = Annotated[str, typer.Option(help="widths of the supernet, comma-separated, ascending, the last is 1")]
Betas = Annotated[
    str | None,
    typer.Option(metavar="FIRST,LAST", help="ends of the linear noise schedule (default: 1e-4,0.02)"),
]


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.add_typer(import_app, name="import")
    app.command(
        "export", epilog="Example: stepfront export runs/digits --point 'fid<=12' --out p; then python p/sample.py"
    )(export)


@import_app.callback(invoke_without_command=True)
def import_(context: typer.Context) -> None:
    """Print the help where no source is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@import_app.command("ddsm", epilog="Example: stepfront import ddsm ckpt_450000.pt --out runs/ddsm/supernet")
def import_ddsm(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help=".pt file written by DDSM's main.py")],
    out: Out,
    widths: Widths = "0.25,0.5,0.75,1.0",
    resolution: Annotated[int, typer.Option(min=4, help="height and width of the images, in pixels")] = 32,
    groups: Annotated[int, typer.Option(min=1, help="groups of its norms: 32, or 16 for --slimmable_g16")] = 32,
    betas: Betas = None,
) -> None:
    """Import a DDSM checkpoint's averaged weights.

    At each width the supernet computes what DDSM computes.
    """
    from stepfront.trainers.interop import ddsm

    with _new_supernet(out) as made:
        card = ddsm.import_ddsm(checkpoint, made, _widths(widths), resolution, groups, _diffusion(betas), _say)
        _write_config(card, made, out, {"supernet": str(out)})
    _show_import(card, out, "search")


@import_app.command(
    "diffusers",
    epilog="Example: stepfront import diffusers ddpm-cifar10-32 --out runs/ddpm/start; "
    "stepfront import diffusers stable-diffusion-v1-5 --prompts prompts.txt --out runs/sd/start",
)
def import_diffusers(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder of a U-Net, a DiT or a pipeline")],
    out: Out,
    widths: Widths = "0.25,0.5,0.75,1.0",
    resolution: Annotated[
        int | None, typer.Option(min=4, help="height and width of the images (default: the model's sample_size)")
    ] = None,
    sort: Annotated[bool, typer.Option(help="order channels by importance, the most important first")] = True,
    betas: Betas = None,
    scheduler: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="scheduler_config.json of its training (default: the one beside the model)"),
    ] = None,
    null_class: Annotated[
        Literal["last", "none"] | None,
        typer.Option(help="for a U-Net with classes: whether its last class means `no class`, as guidance needs"),
    ] = None,
    slim: Annotated[
        Literal["all", "inner"] | None,
        typer.Option(help="for a DiT: what narrow widths keep less of, as network.dit.slim says (default: inner)"),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="for a Stable Diffusion pipeline: a text file of prompts, one per line, which its text encoder "
            "encodes once (needs transformers)",
        ),
    ] = None,
    conditions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="in place of --prompts: .safetensors of the text encoder's outputs; the prompts are in a .txt of that "
            "name beside it",
        ),
    ] = None,
) -> None:
    """Import a diffusers U-Net or DiT as full width of a supernet.

    The classes are UNet2DModel and DiTTransformer2DModel.  Full width computes what the model computes; narrower
    widths are useful after `stepfront train`.  A UNet2DConditionModel, which reads text, needs --prompts or
    --conditions, keeps its one width and is searched as it is.
    """
    from stepfront.trainers.interop.diffusers_import import import_diffusers as import_folder
    from stepfront.trainers.network_settings import PROMPTED

    diffusion = _diffusion(betas)
    training = {"start": str(out), "steps": 20000, "lr": 1e-4, "warmup": 500, "ema": 0.9995}
    with _new_supernet(out) as made:
        given = (_widths(widths), resolution, sort, diffusion, null_class, scheduler, slim, conditions, _say)
        card = import_folder(folder, made, *given, prompts=prompts)
        is_searched = card.network.family == PROMPTED
        _write_config(card, made, out, _as_it_is(out) if is_searched else {"training": training})
    _show_import(card, out, "search" if is_searched else "train")


def export(
    search: Search,
    out: Out,
    point: Point = "knee",
    form: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="program|torch-export|onnx|pipeline|unet2d|dit",
            help="a self-contained program with weights, with torch.export's programs or with ONNX files; a diffusers "
            "pipeline; or full width alone as diffusers' UNet2DModel or DiTTransformer2DModel",
        ),
    ] = "program",
    license_name: Annotated[
        str | None,
        typer.Option("--license", metavar="NAME", help="licence of the weights in a pipeline's model card, e.g. mit"),
    ] = None,
) -> None:
    """Export a front point as a program or a pipeline.

    The program is a folder with networks and plan; it needs only torch, numpy and safetensors (onnxruntime for ONNX).
    DiffusionPipeline.from_pretrained loads the pipeline; it needs only torch and diffusers.
    """
    from stepfront.search.storage.run_location import open_for_reading

    if form not in FORMS:
        raise InputError(f"cannot export as {form!r}; possible: {', '.join(FORMS)}")
    if license_name is not None and form != "pipeline":
        raise InputError(f"--license {license_name} is for the model card of --as pipeline; --as {form} has none")
    if form in FULL_WIDTH_ALONE and point != "knee":
        raise InputError(f"--as {form} exports full width alone, and no front point; leave out --point {point}")
    local = open_for_reading(search).local
    if form == "pipeline":
        _export_pipeline(local, point, out, license_name or "unknown")
    elif form in FULL_WIDTH_ALONE:
        _export_model(local, out, form)
    else:
        _export_program(local, point, out, form)


def _export_program(search: Path, point: str, out: Path, form: str) -> None:
    from stepfront.search.export.program import export_point

    done = export_point(search, point, out, form)
    typer.echo(f"trial {done['point']['trial']}: {done['plan']} in {out}; run: python {out / 'sample.py'}")


def _export_model(search: Path, out: Path, form: str) -> None:
    from stepfront.folders import new_folder
    from stepfront.search.records.run_directory import find_supernet
    from stepfront.trainers.interop.dit.transformer import check_dit, export_dit
    from stepfront.trainers.interop.scheduler_file import SCHEDULER_FILE
    from stepfront.trainers.interop.unet2d import CONFIG_FILE, WEIGHTS_FILE, check_unet2d, export_unet2d
    from stepfront.trainers.networks.card import read_card

    check, write = (check_unet2d, export_unet2d) if form == "unet2d" else (check_dit, export_dit)
    source = find_supernet(search)
    check(read_card(source))
    with new_folder(out, lambda name: name in (CONFIG_FILE, WEIGHTS_FILE, SCHEDULER_FILE)) as made:
        write(source, made)
    typer.echo(f"{'UNet2DModel' if form == 'unet2d' else 'DiTTransformer2DModel'}: {out}")


def _export_pipeline(search: Path, point: str, out: Path, license_name: str) -> None:
    from stepfront.search.export.pipeline_folder import export_pipeline

    done = export_pipeline(search, point, out, license_name, _say)
    typer.echo(f"trial {done['point']['trial']}: {done['plan']} in {out}")
    typer.echo(f"DiffusionPipeline.from_pretrained({str(out)!r}, trust_remote_code=True)")


def _as_it_is(out: Path) -> dict[str, Any]:
    """Return the settings of a search over what needs no training: steps, guidance and reuse of deep features."""
    variants = ["1.0", "1.0u", "1.0r", "1.0ru"]
    return {"supernet": str(out), "sampler": {"steps": 20, "guidance": 7.5}, "space": {"variants": variants}}


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _widths(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"--widths {text!r}; widths look like 0.25,0.5,0.75,1.0") from None


def _diffusion(betas: str | None) -> DiffusionSettings | None:
    from stepfront.trainers.config import DiffusionSettings
    from stepfront.trainers.validation import validate

    if betas is None:
        return None
    try:
        first, last = map(float, betas.split(","))
    except ValueError:
        raise InputError(f"--betas {betas!r}; betas look like 1e-4,0.02") from None
    return validate(DiffusionSettings, {"beta_first": first, "beta_last": last})


@contextlib.contextmanager
def _new_supernet(out: Path) -> Iterator[Path]:
    """Yield the folder to import into; it appears as `out` when the import is complete, with its config.

    Raises InputError where `out` holds a supernet, or other files than an import that was cut short by 0.1.
    """
    from stepfront.checksums import begin_record
    from stepfront.folders import new_folder
    from stepfront.trainers.interop.unet2d import ORIGIN_FILE
    from stepfront.trainers.networks.card import CARD_FILE
    from stepfront.trainers.networks.supernet_files import WEIGHTS_FILE

    if (out / CARD_FILE).exists() and (out / CONFIG_FILE).exists():
        raise InputError(f"there is a supernet in {out} already; choose another --out")
    with new_folder(out, lambda name: name in (CARD_FILE, WEIGHTS_FILE, ORIGIN_FILE)) as made:
        begin_record(made)
        yield made


def _write_config(card: SupernetCard, made: Path, out: Path, settings: dict[str, Any]) -> None:
    """Write settings for the next verb into the folder `made`, which will be `out`."""
    import yaml

    from stepfront.files import write_text
    from stepfront.trainers.network_settings import PROMPTED

    data = {"format": "folder", "path": "data/images", "size": card.resolution, "channels": card.image_channels}
    autoencoder = card.made_with.get("autoencoder")
    if autoencoder or card.image_channels not in (1, 3):  # 8 pixels per latent are usual
        data["size"] = card.resolution * card.made_with.get("latent_pixels", 8)
        data["channels"] = card.made_with.get("pixel_channels", 3)
        data["autoencoder"] = autoencoder or "data/autoencoder"
    if card.made_with.get("clip_sample"):
        settings = settings | {"sampler": settings.get("sampler", {}) | {"clip": True}}
    reads_text = card.network.family == PROMPTED
    network = card.network.model_dump(mode="json", exclude_defaults=True) | {"widths": list(card.network.widths)}
    diffusion = card.diffusion.model_dump(mode="json", exclude_defaults=True)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", out.resolve().parent.name).lstrip("._-") or "imported"
    content = {"name": name, "data": data, "network": network, "diffusion": diffusion} | settings
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None)
    images = "real images of the prompts' kind, for FID" if reads_text else "the images that the model was trained on"
    write_text(made / CONFIG_FILE, f"# Edit data: {images}.\n{text}")


def _show_import(card: SupernetCard, out: Path, verb: str) -> None:
    """Print the widths of an imported supernet, and what to do next."""
    from stepfront.trainers.inference.cost import count_width

    for width in card.network.widths:
        cost = count_width(card.network, card.image_channels, card.resolution, width)
        typer.echo(f"width {width:<6g} {cost.macs / 1e6:10.1f} MMACs  {cost.parameters:>12,} parameters")
    typer.echo(f"supernet: {out}; edit data in {out / CONFIG_FILE}, then: stepfront {verb} {out / CONFIG_FILE}")
