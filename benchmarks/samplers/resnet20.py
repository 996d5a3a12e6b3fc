"""The CIFAR-10 ResNet-20 of He et al. 2016 (section 4.2) as features, with the weights of a public repository."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Block(nn.Module):
    """Two convolutions beside a shortcut that drops pixels and adds empty channels where the shape changes."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.stride, self.added = outside // inside, outside - inside
        self.conv1 = nn.Conv2d(inside, outside, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        half = self.added // 2
        return F.relu(y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half)))


class ResNet20(nn.Module):
    """Levels [B, 3, 32, 32] in 0 ... 255 -> features [B, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for number, channels in enumerate((16, 32, 64), start=1):
            first = _Block(max(16, channels // 2), channels)
            setattr(
                self, f"layer{number}", nn.Sequential(first, _Block(channels, channels), _Block(channels, channels))
            )
        self.linear = nn.Linear(64, 10)

    def forward(self, levels: Tensor) -> Tensor:
        mean, std = (torch.tensor(each).to(levels)[:, None, None] for each in (MEAN, STD))
        x = F.relu(self.bn1(self.conv1((levels / 255 - mean) / std)))
        for number in (1, 2, 3):
            x = getattr(self, f"layer{number}")(x)
        return x.mean(dim=(2, 3))


def load_resnet20(path: Path, device: torch.device) -> ResNet20:
    """Return the network with the weights in a file."""
    saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    network = ResNet20()
    network.load_state_dict({name.removeprefix("module."): value for name, value in saved.items()})
    return network.requires_grad_(False).eval().to(device)
