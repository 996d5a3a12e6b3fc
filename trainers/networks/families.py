"""Look up a network family by its name and build its plain network at one width."""

from __future__ import annotations

from torch import nn

from stepfront.trainers.config import NetworkSettings
from stepfront.trainers.networks.unet import build_unet


def build_backbone(settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> nn.Module:
    """Build the plain network of the settings' family at `width`.

    This is the one place where a family's name is looked up.
    """
    return {"unet": build_unet}[settings.family](settings, image_channels, resolution, width)
