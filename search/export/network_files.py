"""Write the network of one width and depth as a file: its weights, torch.export's program, or ONNX."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stepfront.errors import InputError, first_line
from stepfront.files import file_digest, write_atomically
from stepfront.trainers.latents.decoder import MOST_DECODED, PackedDecoder
from stepfront.trainers.variant import Size

ONNX_LIBRARIES = ("onnx", "onnxscript")

DECODER_FILE = "decoder.pt2"

MOST_IN_CALL = 2**16
"""Images in one call of a program, at most."""

MOST_OF_DIFFUSERS = 63
"""That of a module of diffusers: from 64 on it takes another path, which no export can follow."""

Write = Callable[[nn.Module, tuple[Tensor, ...], Path, int], None]


def check_form(form: str) -> None:
    """Raise InputError where a library that writes this form is missing."""
    missing = [name for name in ONNX_LIBRARIES if importlib.util.find_spec(name) is None]
    if form == "onnx" and missing:
        raise InputError(
            f"--as onnx needs {' and '.join(missing)}; pip install {' '.join(missing)}, or give --as torch-export, "
            "which needs torch alone"
        )


def write_network(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    size: Size,
    form: str,
    out: Path,
    group: int | None = None,
    most: int = MOST_IN_CALL,
) -> dict[str, Any]:
    """Write the network of a size, and of a group of times where there are any, and return its entry in plan.json.

    `inputs` are examples of what it takes: x [2, C, H, W], t [2] and, where there are classes, label [2].  A call has
    `most` images at most.  Raises InputError for a network that the form's library can't trace.
    """
    write, suffix = FORMS[form]
    names = {"group": group, "depth": size.depth}
    more = {name: number for name, number in names.items() if number is not None}
    path = out / f"width-{size.width:g}{''.join(f'-{name}-{number}' for name, number in more.items())}{suffix}"
    try:
        write_atomically(path, lambda beside: write(network, inputs, beside, most))
    except (InputError, OSError):  # of the disk
        raise
    except Exception as error:  # torch has many
        raise InputError(f"{path.stem}: this network can't be written as {form}: {first_line(error)}") from None
    entry: dict[str, Any] = {"width": size.width, "file": path.name, "sha256": file_digest(path)} | more
    if form == "program":
        norms = {key: layer for key, layer in network.named_modules() if isinstance(layer, nn.GroupNorm)}
        entry["groups"] = {key: layer.num_groups for key, layer in norms.items()}
    return entry


def write_decoder(packed: PackedDecoder, out: Path) -> dict[str, Any]:
    """Write the decoder of latents as torch.export's program, and return its entry in plan.json.

    Raises InputError for a decoder that torch.export can't trace.
    """
    path, space = out / DECODER_FILE, packed.space
    decoder = packed.unpack(torch.device("cpu"))
    latents = (torch.zeros(2, space.channels, space.resolution, space.resolution),)
    try:
        write_atomically(path, lambda beside: _write_program(decoder.module, latents, beside, MOST_DECODED))
    except (InputError, OSError):  # of the disk
        raise
    except Exception as error:  # torch.export has many
        raise InputError(f"torch.export can't trace the decoder of this {packed.kind}: {first_line(error)}") from None
    shape = [space.image_channels, space.image_resolution, space.image_resolution]
    return {"file": path.name, "sha256": file_digest(path), "batch": packed.block, "image_shape": shape}


def _write_weights(network: nn.Module, inputs: tuple[Tensor, ...], path: Path, most: int) -> None:
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)


def _write_program(network: nn.Module, inputs: tuple[Tensor, ...], path: Path, most: int) -> None:
    program = torch.export.export(network, inputs, dynamic_shapes=_any_number_of_images(inputs, most))
    with open(path, "wb") as stream:  # by name, torch wants the suffix .pt2
        torch.export.save(program, stream)


def _write_onnx(network: nn.Module, inputs: tuple[Tensor, ...], path: Path, most: int) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of operators of libraries that are not used
    names = ["x", "t", "label"][: len(inputs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations inside torch
        torch.onnx.export(
            network,
            inputs,
            path,
            input_names=names,
            output_names=["noise"],
            dynamo=True,
            dynamic_shapes=_any_number_of_images(inputs, most),
            external_data=False,
            verbose=False,
        )


def _any_number_of_images(inputs: tuple[Tensor, ...], most: int) -> tuple[dict[int, Any], ...]:
    images = torch.export.Dim("images", min=1, max=most)
    return tuple({0: images} for _ in inputs)


FORMS: dict[str, tuple[Write, str]] = {
    "program": (_write_weights, ".safetensors"),
    "torch-export": (_write_program, ".pt2"),
    "onnx": (_write_onnx, ".onnx"),
}
"""What writes a network in each form, and the suffix of its file."""
