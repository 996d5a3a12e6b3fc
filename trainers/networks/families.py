"""Define the contract of a network family, and find one by the name in `network.family`."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from stepfront.plugins import FAMILIES
from stepfront.trainers.network_settings import NetworkSettings


class NetworkFamily(Protocol):
    """A function that builds the network of one width.

    The network maps x [B, C, H, W] and t [B] (training-time units) to the predicted noise [B, C, H, W].  Where the
    settings have classes it also takes label [B], of which `classes` is the null class.

    It is a plain module without a width as state.  Its layers are made by `layers.py` (`conv`, `linear`, `norm`,
    `embedding`), which record how a narrower layer is cut from a wider one: the first channels of every segment.  So
    the networks of all widths have the same layers, in the same order and of the same names.

    The number of parameters and their initial values depend on the arguments and on torch's random generator alone.
    The forward pass is deterministic in eval mode and can run on the meta device, where its MACs are counted.  A size
    that can't be built is an InputError.
    """

    def __call__(self, settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> nn.Module:
        """Return the network at `width`, one of `settings.widths`."""
        ...


def build_backbone(settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> nn.Module:
    """Build a plain network of the settings' family at `width`.  Raises InputError when there is no such family."""
    build: NetworkFamily = FAMILIES.load(settings.family)
    return build(settings, image_channels, resolution, width)
