"""Run the autoencoders of diffusers: build one around given weights, encode and decode."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stepfront.errors import InputError, first_line

DEFAULT_SCALE = {"AutoencoderKL": 0.18215, "VQModel": 0.18215}
"""The scaling_factor of classes whose configs did not name it at first; networks were trained with it."""

_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Layers of attention as diffusers named them before 0.17, which from_pretrained renames, too."""


def build_model(kind: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """Return diffusers' autoencoder around `weights`; without `encoder.` among them, one that decodes alone.

    Raises InputError where diffusers is missing, or where it does not fit config and weights.
    """
    if importlib.util.find_spec("diffusers") is None:
        raise InputError(f"an {kind} needs diffusers, which is not installed: pip install 'diffusers>=0.36'")
    import diffusers

    try:
        with _quiet(), torch.device("meta"):
            model: nn.Module = getattr(diffusers, kind).from_config(dict(config))
    except Exception as error:  # whatever diffusers raises for a config of another version
        raise InputError(f"diffusers can't build this {kind}: {first_line(error)[:200]}") from None
    weights = {_new_name(name): _without_ends(name, value) for name, value in weights.items()}
    if not any(name.startswith("encoder.") for name in weights):
        for part in ("encoder", "quant_conv"):
            if hasattr(model, part):
                delattr(model, part)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise InputError(
                f"its weights do not fit its config: {name} is {given.get(name, 'missing')}, the config's {kind} has "
                f"{expected.get(name, 'no such tensor')}"
            )
    model.load_state_dict(dict(weights), assign=True)
    return model


def encode_with(model: nn.Module, images: Tensor) -> Tensor:
    """Return what the model encodes images in [-1, 1] to: the mean where it gives a distribution."""
    encoded = model.encode(images)  # type: ignore[operator]
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()


def decode_with(model: nn.Module, latents: Tensor) -> Tensor:
    """Return the images of latents."""
    decoded: Tensor = model.decode(latents).sample  # type: ignore[operator]
    return decoded


def _new_name(name: str) -> str:
    *path, layer, kind = name.split(".")
    return ".".join([*path, _OLD_NAMES.get(layer, layer), kind]) if "attentions" in path else name


def _without_ends(name: str, value: Tensor) -> Tensor:
    """Return the weights of an attention that was stored as a 1x1 convolution as those of a linear layer."""
    stored = "attentions" in name and name.endswith(".weight") and value.ndim == 4
    return value[:, :, 0, 0] if stored else value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep diffusers from warning of what its configs of older versions lack."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
