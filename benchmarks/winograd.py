"""Compare Winograd's convolutions with PyTorch's own, layer by layer.

Run it with `python -m benchmarks.winograd`.  The layers are those of DDSM's CIFAR-10 U-Net at its widths, on one
thread, in float32, channels last.  Where PyTorch has NNPACK, which transforms the filters in each call, it is measured
too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.markdown import markdown
from benchmarks.speed_networks import in_turns
from stepfront.trainers.inference.winograd import WinogradConv2d, suits

BATCH = 16
LAYERS = [
    *((c, c, 32) for c in (32, 64, 96, 128)),
    *((c, c, 16) for c in (64, 128, 192, 256)),
    *((c, c, 8) for c in (64, 128, 192, 256)),
    *((c, c, 4) for c in (64, 128, 192, 256)),
    (384, 128, 32),
    (512, 256, 16),
]
"""Channels in, channels out, side of the images."""


def row(inputs: int, outputs: int, side: int) -> dict[str, str]:
    """Return milliseconds and errors of one layer."""
    torch.manual_seed(0)
    layer = nn.Conv2d(inputs, outputs, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(BATCH, inputs, side, side).to(memory_format=torch.channels_last)
    fast, plain = WinogradConv2d(layer), (x.contiguous(), layer.weight.contiguous(), layer.bias)
    runs: dict[str, Callable[[], Tensor]] = {"direct": partial(layer, x), "winograd": partial(fast, x)}
    if torch._nnpack_available():
        runs["nnpack"] = lambda: torch._nnpack_spatial_convolution(*plain, 1, 1)
    seconds = in_turns(runs, 15)
    exact = nn.functional.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)  # type: ignore[union-attr]
    errors = {name: (run() - exact).square().mean().sqrt() / exact.square().mean().sqrt() for name, run in runs.items()}
    return {
        "layer": f"{inputs} to {outputs}, {side}x{side}",
        **{f"{name} (ms)": f"{1000 * spent:.2f}" for name, spent in seconds.items()},
        "gain": f"{seconds['direct'] / seconds['winograd']:.2f}",
        "used": "yes" if suits(layer) else "no",
        **{f"{name}'s error": f"{error:.1g}" for name, error in errors.items()},
    }


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    print(markdown(pd.DataFrame([row(*each) for each in LAYERS])))


if __name__ == "__main__":
    main()
