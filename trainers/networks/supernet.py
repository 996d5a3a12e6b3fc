"""Hold one set of weights for every width and depth: a network for training, and a plain subnet per size."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.card import TimeGroups
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.networks.layers import parameter_segments, slice_parameters
from stepfront.trainers.networks.prediction import NoiseConversion, PredictsNoise, conversion
from stepfront.trainers.noise_schedule import noise_schedule
from stepfront.trainers.variant import Size, Variant, depth_problem


class GroupedNetwork(nn.Module):
    """Networks of equal shapes, one per group of times; `cuts` are the times that part the groups, ascending."""

    def __init__(self, networks: Sequence[nn.Module], cuts: Sequence[float]) -> None:
        super().__init__()
        self.networks, self.cuts = nn.ModuleList(networks), tuple(cuts)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return what each image's network predicts [B, C, H, W]; x [B, C, H, W], times [B] and, with classes, [B]."""
        given = (x, t) if label is None else (x, t, label)
        # On the meta device costs are counted, and all groups have the same.  Elsewhere the list waits for a GPU.
        groups = [0] if t.is_meta else [self.group_of(time) for time in t.tolist()]
        outputs, rows = [], []
        for group in sorted(set(groups)):
            if len(set(groups)) == 1:
                return self._of(group, *given)
            chosen = torch.tensor([i for i, one in enumerate(groups) if one == group], device=x.device)
            outputs.append(self._of(group, *(each[chosen] for each in given)))
            rows.append(chosen)
        return torch.cat(outputs)[torch.cat(rows).argsort()]

    def _of(self, group: int, *given: Tensor) -> Tensor:
        output: Tensor = self.networks[group](*given)
        return output

    def group_of(self, time: float) -> int:
        """Return the group of a time, counted from the times of least noise."""
        return bisect_right(self.cuts, time)


class Supernet(nn.Module):
    """The widest network, and the rule by which narrower and shallower ones are cut from it.

    With `groups`, there is one per group of times.

    Width and depth are arguments, never a state.  The forward pass takes x [B, C, H, W], t [B] in training-time units,
    the width, where there are classes label [B], and a depth (None: the full one).  It returns the predicted noise
    [B, C, H, W].  What the networks themselves predict is a setting of `diffusion`; networks/prediction.py converts it.

    A shallower network is one with other settings (`NetworkSettings.at_depth`) around some or all of the weights.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        image_channels: int,
        resolution: int,
        diffusion: DiffusionSettings | None = None,
        groups: TimeGroups | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.image_channels, self.resolution = settings, image_channels, resolution
        self.diffusion = diffusion or DiffusionSettings()
        self._to_noise = NoiseConversion(self.diffusion)
        self.groups = groups
        self.widest = self._built(Size(1.0))
        # Skeletons only carry shapes and the order of operations; a plain dict keeps them out of parameters().
        with torch.device("meta"):
            self._skeletons = {size: self._built(size) for size in settings.sizes[:-1]}

    def _built(self, size: Size) -> nn.Module:
        settings = self.settings.at_depth(size.depth)
        build = partial(build_backbone, settings, self.image_channels, self.resolution, size.width)
        if self.groups is None:
            return build()
        return GroupedNetwork([build() for _ in self.groups.first], self._told(self.groups.cuts))

    def _told(self, times: Sequence[float]) -> list[float]:
        """Return what a network is told at these times."""
        # On the CPU: a supernet of weights that exist is built on the meta device.
        at = torch.tensor(times, dtype=torch.float64, device="cpu")
        told: list[float] = conversion(
            self.diffusion, noise_schedule(self.diffusion).half_log_snr(at), at
        ).told.tolist()
        return told

    @property
    def widths(self) -> tuple[float, ...]:
        """Return the widths at which the supernet runs, in ascending order."""
        return self.settings.widths

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Return the widths and depths at which the supernet runs, the complete network last."""
        return self.settings.sizes

    def train(self, mode: bool = True) -> Supernet:
        """Set the training mode of the widest network and of the skeletons, which hold the dropout layers."""
        for skeleton in self._skeletons.values():
            skeleton.train(mode)
        super().train(mode)
        return self

    def forward(
        self, x: Tensor, t: Tensor, width: float = 1.0, label: Tensor | None = None, depth: int | None = None
    ) -> Tensor:
        """Return the predicted noise [B, C, H, W] of the network of `width` and `depth`."""
        run = partial(self._backbone, Size(width, depth))
        noise: Tensor = self._to_noise(run, x, t, *(() if label is None else (label,)))
        return noise

    def _backbone(self, size: Size, *inputs: Tensor) -> Tensor:
        if size == Size(1.0):
            return self.widest(*inputs)
        return functional_call(self._skeleton(size), self.sliced(*size), inputs)

    def sliced(self, width: float, depth: int | None = None) -> dict[str, Tensor]:
        """Return the parameters of a width and depth as differentiable slices of the widest network's."""
        size = Size(width, depth)
        return slice_parameters(
            dict(self.widest.named_parameters()),
            parameter_segments(self.widest),
            parameter_segments(self.widest if size == Size(1.0) else self._skeleton(size)),
        )

    def subnet(self, width: float, depth: int | None = None) -> nn.Module:
        """Build the plain torch module of a width and depth that predicts the noise, in eval mode.

        It computes exactly what the supernet computes there, with contiguous weights of its own.
        Raises InputError when the supernet does not have this width or depth.
        """
        network = self.backbone(width, depth)
        if self.diffusion.prediction == "epsilon":
            return network
        converted = partial(self._converted, next(network.parameters()).device)
        if isinstance(network, GroupedNetwork):
            assert self.groups is not None
            return GroupedNetwork(list(map(converted, network.networks)), self.groups.cuts).eval()
        return converted(network).eval()

    def _converted(self, device: torch.device, network: nn.Module) -> nn.Module:
        return PredictsNoise(network, NoiseConversion(self.diffusion).to(device))

    def backbone(self, width: float, depth: int | None = None) -> nn.Module:
        """Build the network of a width and depth as `subnet` does, without a conversion of what it predicts."""
        size = Size(width, depth)
        self._check(size)
        # The widest subnets share the supernet's memory; narrower ones are copied, since contiguous weights run faster.
        own = {name: weights.detach() for name, weights in self.sliced(width, depth).items()}
        if width != 1.0:
            own = {name: weights.clone(memory_format=torch.contiguous_format) for name, weights in own.items()}
        return self._around(size, own).requires_grad_(False).eval()

    def shallower(self, network: nn.Module, width: float, depth: int) -> nn.Module:
        """Build the network of a depth around the parameters of the network of full depth and the same width."""
        size, own = Size(width, depth), dict(network.named_parameters())
        self._check(size)
        return self._around(size, {name: own[name] for name in self._skeleton(size).state_dict()})

    def _around(self, size: Size, own: dict[str, Tensor]) -> nn.Module:
        with torch.device("meta"):
            network = self._built(size)
        network.load_state_dict(own, assign=True)
        return network

    def _skeleton(self, size: Size) -> nn.Module:
        self._check(size)
        return self._skeletons[size]

    def _check(self, size: Size) -> None:
        if size.width not in self.settings.widths:
            widths = ", ".join(map(str, self.settings.widths))
            raise InputError(f"width {size.width} is not one of the supernet's: {widths}")
        if problem := depth_problem(Variant(size.width, depth=size.depth), self.settings.depths):
            raise InputError(f"the supernet can't run {size}: {problem}")
