"""Build TAESD's autoencoders, and TAEF2's, from their raw weights: an encoder's and a decoder's file in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.latents.taesd_layers import layers_of


class Taesd(nn.Module):
    """An encoder and a decoder, or the decoder alone, from raw weights; images are in [-1, 1]."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Build the layers that `weights` name, as `encoder.N...` and `decoder.N...`.

        Raises InputError for names or shapes of another network.
        """
        super().__init__()
        self.encoder = self.decoder = None
        for part in ("encoder", "decoder"):
            own = {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(part)}
            if own:
                setattr(self, part, _layers(own, part == "decoder"))

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents [B, c, h, w] of images [B, C, H, W] in [-1, 1]."""
        assert self.encoder is not None
        return self.encoder((x + 1) / 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images [B, C, H, W] in about [-1, 1] of latents [B, c, h, w]."""
        assert self.decoder is not None
        return self.decoder(latents) * 2 - 1


def is_raw(folder: Path) -> bool:
    """Return whether a folder holds one encoder and one decoder as raw weights, and no config."""
    return not (folder / "config.json").exists() and all(len(_files(folder, part)) == 1 for part in _PARTS)


def raw_files(folder: Path) -> dict[str, Path]:
    """Return the file of each part."""
    return {part: _files(folder, part)[0] for part in _PARTS}


_PARTS = ("encoder", "decoder")


def _files(folder: Path, part: str) -> list[Path]:
    return sorted(folder.glob(f"*{part}.safetensors"))


def _layers(weights: Mapping[str, Tensor], decodes: bool) -> nn.Sequential:
    network = layers_of({name: value.shape for name, value in weights.items()}, decodes)
    _check_shapes(network, weights, "decoder" if decodes else "encoder")
    return network


def _check_shapes(network: nn.Module, weights: Mapping[str, Tensor], part: str) -> None:
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != given:
        name = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))[0]
        raise InputError(f"the {part} is no TAESD: {name} is {given.get(name, 'missing')}; another layout is unknown")
