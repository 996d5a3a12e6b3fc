"""A UNet2DConditionModel of diffusers with the prompts that it was searched on, each in the place of a class.

Needs diffusers and torch alone.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn


class PlanPromptUNet(ModelMixin, ConfigMixin):
    """The module of `unet_config`, and the text encoder's outputs of the `texts`, that of the empty prompt last.

    `num_class_embeds` counts them all.  `latents` is as in PlanUNet.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        sample_size: int,
        unet_config: dict[str, Any],
        tokens: int,
        texts: list[str],
        num_class_embeds: int,
        latents: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel.from_config(unet_config)
        self.prompts = nn.Parameter(torch.zeros(num_class_embeds, tokens, unet_config["cross_attention_dim"]))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        width: float | None = None,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """Return what the module makes [B, C, H, W] of sample [B, C, H, W] and the prompts of these numbers [B].

        `timestep` is a number or [B].  The only width is 1.
        """
        if class_labels is None or width not in (None, 1.0):
            raise ValueError("class_labels, the numbers of prompts, are needed, and the only width is 1")
        times = torch.as_tensor(timestep, device=sample.device, dtype=torch.float32).expand(len(sample))
        text = self.prompts[class_labels]
        predicted = self.unet(sample.to(self.dtype), times, encoder_hidden_states=text).sample
        return UNet2DOutput(sample=predicted) if return_dict else (predicted,)
