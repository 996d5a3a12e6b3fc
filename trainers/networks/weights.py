"""Read tensors from safetensors files, and compute the digest that identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stepfront.errors import InputError


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the sha256 over names, shapes and float32 values; equal weights have equal digests on any device."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, by name; floating-point numbers of any size as float32.

    No other format is read, so no code in the file can run.
    Raises InputError when the file is missing or damaged.
    """
    try:
        return {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
    except FileNotFoundError:
        raise InputError(f"no weights at {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a complete safetensors file: {error}") from None
