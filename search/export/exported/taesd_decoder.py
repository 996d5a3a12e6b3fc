"""The decoder of a TAESD or TAEF2 as a diffusers model, from its raw weights (github.com/madebyollin/taesd, MIT).

Needs diffusers and torch alone; taesd_layers.py stands beside it.
"""

from __future__ import annotations

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from stepfront.trainers.latents.taesd_layers import layers_of


class TaesdDecoder(ModelMixin, ConfigMixin):
    """Latents to images; `shapes` names the weights of the layers, which follow from them."""

    @register_to_config
    def __init__(self, shapes: dict[str, list[int]]) -> None:
        super().__init__()
        own = {name.removeprefix("decoder."): shape for name, shape in shapes.items()}
        self.decoder = layers_of(own, decodes=True)

    @apply_forward_hook
    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Return the images [B, C, H, W] in about [-1, 1] of latents [B, c, h, w]."""
        images = self.decoder(z) * 2 - 1
        return DecoderOutput(sample=images) if return_dict else (images,)
