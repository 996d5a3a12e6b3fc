"""The networks of a plan as one diffusers model: the width is an argument of the forward pass.

Needs diffusers and torch alone; sample.py stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from stepfront.search.export.exported.sample import UNet


@dataclass
class FeaturesOutput(UNet2DOutput):
    """The predicted noise, and the deep features that a later call may reuse, where they were asked for."""

    deep: Tensor | None = None


class PlanUNet(ModelMixin, ConfigMixin):
    """A network per width that the plan runs.

    `networks` gives for each its width, the shape of each weight and the groups of each norm; `shared` is what all
    widths share (see sample.py).  `num_class_embeds` counts the null class, which is the last, as UNet2DModel does.
    `latents` says how the networks read the latents of an autoencoder, (latents - shift) scale with numbers for all
    channels or per channel, and how many images are decoded in one call; None where they read pixels.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        sample_size: int,
        networks: list[dict[str, Any]],
        shared: dict[str, Any],
        num_class_embeds: int | None = None,
        latents: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.weights = nn.ModuleList(_weights_of(network["shapes"]) for network in networks)

    @property
    def widths(self) -> list[float]:
        """The widths of the networks, ascending."""
        return [float(network["width"]) for network in self.config["networks"]]

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
        """Return the predicted noise [B, C, H, W] of sample [B, C, H, W] by the network of `width` (None: the widest).

        `timestep` is a number or [B].  `class_labels` [B] are needed where there are classes.  A call that `keeps`
        returns its deep features, too.  One that gets those of another call as `deep` runs the outermost level alone.
        """
        chosen = self.widths[-1] if width is None else width
        if chosen not in self.widths:
            raise ValueError(f"width {width}; possible: {', '.join(f'{each:g}' for each in self.widths)}")
        if (class_labels is None) != (self.config["num_class_embeds"] is None):
            raise ValueError("class_labels are needed exactly where there are classes (num_class_embeds)")
        index = self.widths.index(chosen)
        weights = dict(self.weights[index].named_parameters())
        network = UNet(weights, self.config["networks"][index]["groups"], self.config["shared"])  # type: ignore[arg-type]
        # Times stay in float32: in half precision 999 and 999.3 are one number.
        times = torch.as_tensor(timestep, device=sample.device, dtype=torch.float32).expand(len(sample))
        given, kept = (sample.to(self.dtype), times, class_labels), None
        if keeps:
            predicted, kept = network.with_features(*given)
        else:
            predicted = network(*given) if deep is None else network.reusing(deep, *given)
        return FeaturesOutput(sample=predicted, deep=kept) if return_dict else (predicted,)


def _weights_of(shapes: dict[str, list[int]]) -> nn.Module:
    """Return a module that holds a parameter per name, such as down.0.conv1.weight."""
    root = nn.Module()
    for name, shape in shapes.items():
        *path, last = name.split(".")
        place = root
        for part in path:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.register_parameter(last, nn.Parameter(torch.empty(shape)))
    return root
