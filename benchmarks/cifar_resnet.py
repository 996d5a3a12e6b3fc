"""Make a feature file of a CIFAR-10 ResNet: weights in, TorchScript (.pt) or torch.export (.pt2) out.

The weights are those of akamaster/pytorch_resnet_cifar10: the 6n+2 layers of He et al. 2016, section 4.2. Shortcuts
pad with zeros (option A).  The features are the 64 means before the last layer.

    python -m benchmarks.cifar_resnet ../shared/data/cifar-resnets/resnet20-12fca82f.th runs/resnet20.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepfront.errors import InputError

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels in [0, 1] that the weights were trained on."""
STAGES = (16, 32, 64)
"""Channels of the three stages; each but the first halves the resolution."""


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut without weights."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.stride = 1 if channels == channels_in else 2
        self.padding = (channels - channels_in) // 2
        self.conv1 = nn.Conv2d(channels_in, channels, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] to [B, channels, H / stride, W / stride]."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(shortcut, [0, 0, 0, 0, self.padding, self.padding]))


class CifarResNet(nn.Module):
    """The ResNet without its last layer: images [B, 1 or 3, H, W] in [-1, 1] to features [B, 64]."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)
        self.conv1 = nn.Conv2d(3, STAGES[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STAGES[0])
        ends = zip((STAGES[0], *STAGES), STAGES, strict=False)
        stages = [[Block(a if i == 0 else b, b) for i in range(blocks)] for a, b in ends]
        self.layer1, self.layer2, self.layer3 = (nn.Sequential(*stage) for stage in stages)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        x = ((x + 1) / 2 - self.mean) / self.deviation
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3))


def load_cifar_resnet(path: Path) -> CifarResNet:
    """Return the network of a file of weights, with as many blocks as the file has.  Reads no pickled objects."""
    weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layer1."))
    network = CifarResNet(blocks)
    network.load_state_dict({name: value for name, value in weights.items() if not name.startswith("linear.")})
    return network.eval()


def write_feature_file(network: nn.Module, example: Tensor, path: Path) -> None:
    """Write the network as TorchScript (.pt) or by torch.export (.pt2), for any number of images like `example`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        with torch.inference_mode():
            torch.jit.trace(network, example).save(str(path))
    elif path.suffix == ".pt2":
        batch = torch.export.Dim("batch", min=1)
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=({0: batch},)), path)
    else:
        raise InputError(f"{path} given; a feature file ends in .pt (TorchScript) or .pt2 (torch.export)")


def main() -> None:
    """Write the feature file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help=".th file of akamaster/pytorch_resnet_cifar10")
    parser.add_argument("out", type=Path, help="feature file to write: .pt or .pt2")
    given = parser.parse_args()
    write_feature_file(load_cifar_resnet(given.weights), torch.zeros(2, 3, 32, 32), given.out)


if __name__ == "__main__":
    main()
