"""Run a width as DDSM does: one wide network whose layers slice their weights in every call.

This is a plain second implementation to measure against.  It computes what the materialised subnet computes.  The
layers of the wide network are shared by all widths and hold the only weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.networks.layers import Segments
from stepfront.trainers.networks.supernet import Supernet


def slicing_network(supernet: Supernet, width: float) -> nn.Module:
    """Return the network of `width`, which reads its weights from the supernet in every call.

    Skips are sliced by prefix, as DDSM does, so `settings.skips` must be `prefix`.
    """
    settings: NetworkSettings = supernet.settings
    assert settings.skips == "prefix"
    with torch.device("meta"):
        narrow = build_backbone(settings, supernet.image_channels, supernet.resolution, width)
    wide = dict(supernet.widest.named_modules())
    for name, layer in list(narrow.named_modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.GroupNorm):
            parent, _, own = name.rpartition(".")
            setattr(narrow.get_submodule(parent), own, Sliced(layer, wide[name]))
    return narrow.eval()


class Sliced(nn.Module):
    """A layer with the sizes of the narrow one and the weights of the wide one."""

    def __init__(self, narrow: nn.Module, wide: nn.Module) -> None:
        super().__init__()
        self._kind, self._narrow = type(narrow), [narrow]  # in a list: the narrow layer has no weights to register
        self._wide = [wide]
        axes: dict[str, tuple[Segments, ...]] = narrow.segments  # type: ignore[assignment]
        whole: dict[str, tuple[Segments, ...]] = wide.segments  # type: ignore[assignment]
        self._outputs, self._whole_outputs = axes["bias"][0], whole["bias"][0]
        self._inputs = 0 if self._kind is nn.GroupNorm else sum(axes["weight"][1])

    def forward(self, x: Tensor) -> Tensor:
        narrow, wide = self._narrow[0], self._wide[0]
        weight, bias = self._rows(wide.weight), self._rows(wide.bias)
        if isinstance(narrow, nn.GroupNorm):
            return F.group_norm(x, narrow.num_groups, weight, bias, narrow.eps)
        weight = weight[:, : self._inputs]
        if isinstance(narrow, nn.Conv2d):
            return F.conv2d(x, weight, bias, narrow.stride, narrow.padding)  # type: ignore[arg-type]
        return F.linear(x, weight, bias)

    def _rows(self, values: Tensor) -> Tensor:
        if len(self._outputs) == 1:
            return values[: self._outputs[0]]
        # Query, key and value are three layers there; one call on their joined slices is the cheaper of the two.
        starts = [sum(self._whole_outputs[:i]) for i in range(len(self._outputs))]
        return torch.cat([values[a : a + n] for a, n in zip(starts, self._outputs, strict=True)])
