"""Define Inception-v3 (Szegedy et al. 2015, arXiv 1512.00567) as FID uses it: 2,048 features per image.

It is the network of the TensorFlow graph of 2015-12-05, on which Heusel et al. (2017) computed FID, and takes the
weights that pytorch-fid ported from it (`pt_inception-2015-12-05-6726825d.pth`).  It differs from other
Inceptions in three ways: averages leave the padding out, the last block pools by maximum, and its read-out, unused
here, has 1,008 classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepfront.errors import InputError

FEATURES = 2048
_SIDE = 299

Pool = Literal["average", "maximum", "halve"]
Kernel = int | tuple[int, int]


class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU.  Those that do not halve keep the size, unless `padding` is false."""

    def __init__(self, before: int, after: int, kernel: Kernel, halve: bool = False, padding: bool = True) -> None:
        super().__init__()
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (size[0] // 2, size[1] // 2) if padding and not halve else (0, 0)
        self.conv = nn.Conv2d(before, after, size, stride=2 if halve else 1, padding=around, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """Chains of convolutions side by side, and a pooled one.

    `chains` maps a chain's name to its (channels, kernel) in order: the modules are called NAME_1, NAME_2, or NAME
    alone.  Two kernels in the last place are two convolutions of the same input, NAME_2a and NAME_2b.  Where the block
    halves the resolution, the last convolution of each chain does, and the pooled input is taken as it is.
    """

    def __init__(
        self, before: int, chains: Mapping[str, list[tuple[int, Kernel | list[Kernel]]]], pool: Pool, pooled: int = 0
    ) -> None:
        super().__init__()
        self._pool: Pool = pool
        self._chains: list[list[list[str]]] = []
        for name, links in chains.items():
            chain, channels = [], before
            for i, (after, kernels) in enumerate(links):
                own = name if len(links) == 1 else f"{name}_{i + 1}"
                halve = pool == "halve" and i == len(links) - 1
                several = kernels if isinstance(kernels, list) else [kernels]
                names = [own] if len(several) == 1 else [own + letter for letter in "ab"]
                for module, kernel in zip(names, several, strict=True):
                    self.add_module(module, Convolution(channels, after, kernel, halve))
                chain.append(names)
                channels = after
            self._chains.append(chain)
        if pooled:
            self.branch_pool = Convolution(before, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for chain in self._chains:
            y = x
            for names in chain:
                y = torch.cat([self.get_submodule(name)(y) for name in names], dim=1)
            parts.append(y)
        return torch.cat([*parts, self._pooled(x)], dim=1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self._pool == "halve":
            return F.max_pool2d(x, 3, stride=2)
        if self._pool == "maximum":
            return self.branch_pool(F.max_pool2d(x, 3, stride=1, padding=1))
        return self.branch_pool(F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False))


def _block_35(before: int, pooled: int) -> Mixed:
    """Figure 5 of the paper, at 35 x 35."""
    chains: dict[str, list[tuple[int, Kernel | list[Kernel]]]] = {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
    }
    return Mixed(before, chains, "average", pooled)


def _block_17(middle: int) -> Mixed:
    """Figure 6, at 17 x 17: 7 x 7 convolutions as pairs of 1 x 7 and 7 x 1."""
    chains: dict[str, list[tuple[int, Kernel | list[Kernel]]]] = {
        "branch1x1": [(192, 1)],
        "branch7x7": [(middle, 1), (middle, (1, 7)), (192, (7, 1))],
        "branch7x7dbl": [(middle, 1), (middle, (7, 1)), (middle, (1, 7)), (middle, (7, 1)), (192, (1, 7))],
    }
    return Mixed(768, chains, "average", 192)


def _block_8(before: int, pool: Pool) -> Mixed:
    """Figure 7, at 8 x 8: the last convolution of a chain spread over 1 x 3 and 3 x 1."""
    chains: dict[str, list[tuple[int, Kernel | list[Kernel]]]] = {
        "branch1x1": [(320, 1)],
        "branch3x3": [(384, 1), (384, [(1, 3), (3, 1)])],
        "branch3x3dbl": [(448, 1), (384, 3), (384, [(1, 3), (3, 1)])],
    }
    return Mixed(before, chains, pool, 192)


class Inception(nn.Module):
    """The network without its read-out; the modules are named as in the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, halve=True)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padding=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padding=False)
        self.Mixed_5b = _block_35(192, pooled=32)
        self.Mixed_5c = _block_35(256, pooled=64)
        self.Mixed_5d = _block_35(288, pooled=64)
        self.Mixed_6a = Mixed(288, {"branch3x3": [(384, 3)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3)]}, "halve")
        self.Mixed_6b = _block_17(128)
        self.Mixed_6c = _block_17(160)
        self.Mixed_6d = _block_17(160)
        self.Mixed_6e = _block_17(192)
        self.Mixed_7a = Mixed(
            768,
            {"branch3x3": [(192, 1), (320, 3)], "branch7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)]},
            "halve",
        )
        self.Mixed_7b = _block_8(1280, "average")
        self.Mixed_7c = _block_8(2048, "maximum")

    def forward(self, images: Tensor) -> Tensor:
        """Return features [N, 2048] of images [N, C, H, W] in [-1, 1], grey or RGB."""
        x = F.interpolate(images.expand(-1, 3, -1, -1), size=(_SIDE, _SIDE), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(2, 3))


def load_inception(weights: Mapping[str, Tensor]) -> Inception:
    """Return the network with the published weights; the read-out `fc` and counters of batches are ignored.

    Raises InputError, which names the weight, when one is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        network = Inception()
    expected = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    given = {k: v for k, v in weights.items() if not k.startswith("fc.") and not k.endswith("num_batches_tracked")}
    for problem, names in (
        ("lacks", expected.keys() - given.keys()),
        ("also holds", given.keys() - expected.keys()),
        ("has another shape of", {k for k in expected.keys() & given.keys() if given[k].shape != expected[k].shape}),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"not the weights of FID's Inception-v3: it {problem} {min(names)}{more}")
    network.load_state_dict({name: value.float() for name, value in given.items()}, assign=True, strict=False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = torch.tensor(0)  # unused, but a tensor on no device can't be moved
    return network.requires_grad_(False).eval()
