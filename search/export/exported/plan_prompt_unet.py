"""A UNet2DConditionModel of diffusers with the prompts that it was searched on, each in the place of a class.

Needs diffusers and torch alone; text_unet_features.py stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from stepfront.trainers.network_families.text_unet_features import reusing, with_features


@dataclass
class FeaturesOutput(UNet2DOutput):
    """What the module makes, and the deep features that a later call may reuse, where they were asked for."""

    deep: Tensor | None = None


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
        deep: Tensor | None = None,
        keeps: bool = False,
    ) -> FeaturesOutput | tuple[Tensor, ...]:
        """Return what the module makes [B, C, H, W] of sample [B, C, H, W] and the prompts of these numbers [B].

        `timestep` is a number or [B].  The only width is 1.  `deep` and `keeps` are as in PlanUNet.
        """
        if class_labels is None or width not in (None, 1.0):
            raise ValueError("class_labels, the numbers of prompts, are needed, and the only width is 1")
        times = torch.as_tensor(timestep, device=sample.device, dtype=torch.float32).expand(len(sample))
        x, text, kept = sample.to(self.dtype), self.prompts[class_labels], None
        if keeps:
            predicted, kept = with_features(self.unet, x, times, text)
        elif deep is not None:
            predicted = reusing(self.unet, deep, x, times, text)
        else:
            predicted = self.unet(x, times, encoder_hidden_states=text).sample
        return FeaturesOutput(sample=predicted, deep=kept) if return_dict else (predicted,)
