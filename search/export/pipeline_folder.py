"""Export a Pareto-front point as a folder that DiffusionPipeline.from_pretrained loads without stepfront.

It holds the networks in diffusers' layout (unet/), the plan as a scheduler (scheduler/), the programs that run them
(copies of exported/), a model card and an example image.  Networks on latents have their autoencoder in vae/.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from stepfront.files import read_json, write_atomically, write_json, write_text
from stepfront.folders import check_free, new_folder
from stepfront.search.export.exported.sample import Point, grid
from stepfront.search.export.model_card import EXAMPLE_FILE, model_card
from stepfront.search.export.program import FrontPoint, load_point, plan_content, weights_of_plan, write_point
from stepfront.trainers.devices import pick_device
from stepfront.trainers.latents import taesd_layers
from stepfront.trainers.latents.autoencoder import RAW, load_autoencoder
from stepfront.trainers.latents.decoder import PackedDecoder
from stepfront.trainers.network_families import text_unet_features
from stepfront.trainers.network_settings import PROMPTED

EXPORTED = Path(__file__).parent / "exported"
CARD_FILE, INDEX_FILE, WEIGHTS_FILE = "README.md", "model_index.json", "diffusion_pytorch_model.safetensors"
FOLDERS = ("unet", "scheduler", "vae")
DIFFUSERS = "0.36.0"
"""The first version of diffusers that reads these folders, named in their configs."""

EXAMPLES, EXAMPLE_PIXELS = 16, 32
FEW_EXAMPLES, MANY_GFLOPS = 4, 1000.0
"""Example images where one costs more than so many GFLOPs, decoding included."""

Say = Callable[[str], None]


def export_pipeline(
    path: Path, point: str, out: Path, license_name: str, say: Say = lambda text: None
) -> dict[str, Any]:
    """Write the folder of a front point, completely or not at all, and return the content of the point's plan.json.

    `license_name` is the licence of the weights in the model card.  `say` is told of example images that take long.
    Raises InputError when `out` holds other files, or when the supernet is not the one that was searched.
    """
    check_free(out, _is_ours)  # before the supernet is loaded
    found = load_point(path, point, "pipeline")
    found.problem.card.check_ungrouped("a diffusers pipeline holds one network per width, and this supernet")
    with new_folder(out, _is_ours) as made:
        return write_pipeline(found, made, out.name, license_name, say)


def write_pipeline(
    point: FrontPoint, out: Path, name: str, license_name: str, say: Say = lambda text: None
) -> dict[str, Any]:
    """Write the files of a pipeline into `out`, which the model card calls `name`."""
    decoder = point.problem.decoder
    if point.problem.card.network.family == PROMPTED:
        program = None  # one file of the network is enough, and it may have gigabytes
        content = plan_content(point.problem, point.facts, point.row, point.plan)
        config = _common_config(content, decoder)
        unet = _write_prompted(point, config, out / "unet")
    else:
        program = out / "program"  # for the example images
        content = write_point(point.problem, point.facts, point.row, point.plan, program, decodes=False)
        config = _common_config(content, decoder)
        unet = _write_networks(content, program, config, out / "unet")
    _write_parts(content, unet, out, decoder)
    if decoder is not None:
        content["decoder"] = _write_autoencoder(decoder, out / "vae")
    images = _sample(out, program, decoder, content, float(point.row["gflops"]), say)
    content["examples"] = len(images)
    if program is not None:
        shutil.rmtree(program)
    _example(images).save(out / EXAMPLE_FILE)
    write_text(out / CARD_FILE, model_card(content, point.facts, point.row, name, license_name, _imported(point)))
    return content


def _imported(point: FrontPoint) -> str:
    """Return from where a network came that was not trained here; empty for one that was."""
    card = point.problem.card
    return "" if card.data_fingerprint else str(card.made_with.get("imported", "elsewhere"))


def _sample(
    out: Path,
    program: Path | None,
    decoder: PackedDecoder | None,
    content: Mapping[str, Any],
    gflops: float,
    say: Say,
) -> np.ndarray:
    """Return the first images of noise seed 0, uint8 [N, H, W, C], from a GPU where there is one.

    An image costs `gflops`, decoding not included.  Without a program, the pipeline in `out` runs.
    """
    device, count = pick_device("auto"), EXAMPLES
    gflops += content.get("decoder", {}).get("gflops", 0.0)
    if gflops > MANY_GFLOPS:
        count = FEW_EXAMPLES
        say(f"sampling {count} example images on {device}: {count * gflops:,.0f} GFLOPs")
    if program is None:
        return _sample_prompted(out, decoder, device, count)
    point = Point(program, str(device))
    if decoder is not None:
        point.decoder = decoder.unpack(point.device)
        point.plan["decoder"] = {"batch": decoder.block}
    return point.sample([0] * count, range(count))


def _sample_prompted(out: Path, decoder: PackedDecoder | None, device: torch.device, count: int) -> np.ndarray:
    """Return images of the pipeline in `out`, as `_sample` does."""
    from stepfront.search.export.exported.pipeline import PlanPipeline  # these import diffusers
    from stepfront.search.export.exported.plan_prompt_unet import PlanPromptUNet
    from stepfront.search.export.exported.plan_scheduler import PlanScheduler

    unet = PlanPromptUNet.from_config(read_json(out / "unet" / "config.json", "network's config"))
    unet.load_state_dict(load_file(out / "unet" / WEIGHTS_FILE))
    scheduler = PlanScheduler.from_config(read_json(out / "scheduler" / "scheduler_config.json", "plan"))
    pipeline = PlanPipeline(unet.eval(), scheduler).to(device)
    pipeline.set_progress_bar_config(disable=True)
    x = pipeline(count, seed=0, output_type="pt" if decoder is None else "latent").images
    if decoder is None:
        x = 2 * x - 1
    else:
        decode = decoder.unpack(device)
        x = decode.check_finite(x, decode(x))
    return np.moveaxis(((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy(), 1, 3)


def _example(images: np.ndarray) -> Image.Image:
    """Draw images [N, H, W, C] as a grid; small ones are enlarged by a whole factor."""
    sheet = grid(images)
    picture = Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)
    factor = max(1, -(-EXAMPLE_PIXELS // images.shape[1]))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _common_config(content: Mapping[str, Any], decoder: PackedDecoder | None) -> dict[str, Any]:
    """Return what the configs of all networks say."""
    channels, _, resolution = content["image_shape"]
    condition = content.get("condition")
    config: dict[str, Any] = {"in_channels": channels, "sample_size": resolution}
    config["num_class_embeds"] = None if condition is None else len(condition["counts"]) + 1
    if decoder is not None:
        space = decoder.space
        config["latents"] = {"shift": space.shift, "scale": space.scale, "batch": decoder.block}
    return config


def _write_prompted(point: FrontPoint, config: dict[str, Any], unet: Path) -> list[str]:
    """Write a network that reads text, with its prompts; return the program and the class that index names."""
    card, weights = point.problem.card, weights_of_plan(point.problem, point.plan)
    own, texts = card.network.unet2d_condition, list(card.class_names)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    unet.mkdir()
    write_atomically(unet / WEIGHTS_FILE, lambda path: save_file(tensors, path, {"format": "pt"}))
    more = {"unet_config": own.config, "tokens": own.tokens, "texts": texts}
    write_json(unet / "config.json", _named("PlanPromptUNet") | config | more)
    _write_program("plan_prompt_unet", unet)
    _write_program("text_unet_features", unet, Path(text_unet_features.__file__).parent)
    return ["plan_prompt_unet", "PlanPromptUNet"]


def _write_networks(content: Mapping[str, Any], program: Path, config: dict[str, Any], unet: Path) -> list[str]:
    """Write the networks of all widths of a plan; return the program and the class that the index names."""
    unet.mkdir()
    tensors: dict[str, Tensor] = {}
    networks = []
    for number, network in enumerate(content["networks"]):
        weights = load_file(program / network["file"])
        tensors |= {f"weights.{number}.{name}": value for name, value in weights.items()}
        shapes = {name: list(value.shape) for name, value in sorted(weights.items())}
        networks.append({"width": network["width"], "shapes": shapes, "groups": network["groups"]})
    write_atomically(unet / WEIGHTS_FILE, lambda path: save_file(tensors, path, {"format": "pt"}))
    write_json(unet / "config.json", _named("PlanUNet") | config | {"networks": networks, "shared": content["unet"]})
    for name in ("plan_unet", "sample"):
        _write_program(name, unet)
    return ["plan_unet", "PlanUNet"]


def _write_parts(content: Mapping[str, Any], unet: list[str], out: Path, decoder: PackedDecoder | None) -> None:
    """Write the scheduler, programs, and the index that names them and the program and class of `unet`."""
    scheduler, condition = out / "scheduler", content.get("condition")
    scheduler.mkdir()
    plan: dict[str, Any] = {"plan": content["plan"], "steps": content["steps"], "clip": content["clip"]}
    if condition is not None:
        plan |= {"guidance_scale": condition["guidance"], "label_counts": condition["counts"]}
    write_json(scheduler / "scheduler_config.json", _named("PlanScheduler") | plan)
    _write_program("pipeline", out)
    _write_program("plan_scheduler", scheduler)
    parts = {"unet": unet, "scheduler": ["plan_scheduler", "PlanScheduler"]}
    if decoder is not None:
        parts["vae"] = ["taesd_decoder", "TaesdDecoder"] if decoder.kind == RAW else ["diffusers", decoder.kind]
    write_json(out / INDEX_FILE, _named(["pipeline", "PlanPipeline"]) | parts)


def _write_program(name: str, folder: Path, source: Path = EXPORTED) -> None:
    text = (source / f"{name}.py").read_text(encoding="utf-8")
    # diffusers copies the files of a folder that import each other with a dot, and no others.
    write_text(folder / f"{name}.py", re.sub(r"from stepfront\.(?:\w+\.)*(\w+) import", r"from .\1 import", text))


def _write_autoencoder(packed: PackedDecoder, folder: Path) -> dict[str, Any]:
    """Write the autoencoder as diffusers does, in float32 as it is run here, with its licence where it has one.

    Of raw TAESD weights the decoder is written.  Returns what the model card says of it.
    """
    folder.mkdir()
    source, space = Path(packed.space.autoencoder), packed.space
    if packed.kind == RAW:
        weights = {name: torch.from_numpy(np.array(array)) for name, array in packed.weights.items()}
        config = _named("TaesdDecoder") | {"shapes": {name: list(value.shape) for name, value in weights.items()}}
        _write_program("taesd_decoder", folder)
        _write_program("taesd_layers", folder, Path(taesd_layers.__file__).parent)
    else:
        autoencoder = load_autoencoder(source)
        weights, config = autoencoder.weights, _named(packed.kind) | autoencoder.config
    tensors = {name: value.contiguous() for name, value in weights.items()}
    write_atomically(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path, {"format": "pt"}))
    write_json(folder / "config.json", config)
    for licence in sorted(source.glob("LICENSE*")):
        shutil.copyfile(licence, folder / licence.name)
    shape = [space.image_channels, space.image_resolution, space.image_resolution]
    return {"kind": packed.kind, "digest": space.digest, "image_shape": shape, "gflops": 2e-9 * packed.macs}


def _named(name: str | list[str]) -> dict[str, Any]:
    return {"_class_name": name, "_diffusers_version": DIFFUSERS}


def _is_ours(name: str) -> bool:
    return name in (CARD_FILE, EXAMPLE_FILE, INDEX_FILE, "pipeline.py", "program", *FOLDERS)
