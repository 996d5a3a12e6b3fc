"""DDSM's slimmable U-Net, written down a second time: a checkpoint's tensors and a width in, its prediction out.

Straight from the facts of the paper and its released code: every call slices its own weights by the number of inputs
that it meets and the number of outputs that its width leaves, rounded to 8 (convolutions), 16 (linear maps) or 1
(query, key, value); norms keep their groups; the last convolution is not slimmed.  No layer of stepfront's is used.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def ddsm_forward(weights: Weights, x: Tensor, t: Tensor, width: float, groups: int) -> Tensor:
    """Return the predicted noise [B, 3, H, W] of x [B, 3, H, W] and integer t [B]."""
    return _Pass(weights, width, groups).predict(x, t)


class _Pass:
    def __init__(self, weights: Weights, width: float, groups: int) -> None:
        self.weights, self.width, self.groups = weights, width, groups

    def outputs(self, whole: int, unit: int) -> int:
        nearest = max(1, int(whole * self.width + unit / 2) // unit * unit)
        return nearest + unit if nearest < 0.9 * whole * self.width else nearest

    def conv(self, name: str, x: Tensor, stride: int = 1, unit: int = 8, slim: bool = True) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        count = self.outputs(len(weight), unit) if slim else len(weight)
        padding = weight.shape[2] // 2
        return F.conv2d(x, weight[:count, : x.shape[1]], bias[:count], stride=stride, padding=padding)

    def linear(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        count = self.outputs(len(weight), 16)
        return x @ weight[:count, : x.shape[1]].T + bias[:count]

    def norm(self, name: str, x: Tensor) -> Tensor:
        channels = x.shape[1]
        grouped = x.reshape(len(x), self.groups, -1)
        mean, variance = grouped.mean(2, keepdim=True), grouped.var(2, keepdim=True, unbiased=False)
        normal = ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
        scale, shift = self.weights[f"{name}.weight"][:channels], self.weights[f"{name}.bias"][:channels]
        return normal * scale[:, None, None] + shift[:, None, None]

    def attention(self, name: str, x: Tensor) -> Tensor:
        h = self.norm(f"{name}.group_norm", x)
        q, k, v = (self.conv(f"{name}.proj_{part}", h, unit=1).flatten(2) for part in "qkv")
        match = torch.einsum("bcq,bck->bqk", q, k) / math.sqrt(x.shape[1])
        mixed = torch.einsum("bqk,bck->bcq", match.softmax(2), v)
        return x + self.conv(f"{name}.proj", mixed.reshape(x.shape))

    def residual(self, name: str, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv(f"{name}.block1.2", _swish(self.norm(f"{name}.block1.0", x)))
        h = h + self.linear(f"{name}.temb_proj.1", _swish(time))[:, :, None, None]
        h = self.conv(f"{name}.block2.3", _swish(self.norm(f"{name}.block2.0", h)))
        h = h + (self.conv(f"{name}.shortcut", x) if f"{name}.shortcut.weight" in self.weights else x)
        return self.attention(f"{name}.attn", h) if f"{name}.attn.proj.weight" in self.weights else h

    def predict(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.weights["time_embedding.timembedding.0.weight"][t]
        time = self.linear("time_embedding.timembedding.1", time)
        time = self.linear("time_embedding.timembedding.3", _swish(time))
        h = self.conv("head", x)
        skips = [h]
        for name in self.blocks("downblocks"):
            halves = f"{name}.main.weight" in self.weights
            h = self.conv(f"{name}.main", h, stride=2) if halves else self.residual(name, h, time)
            skips.append(h)
        for name in self.blocks("middleblocks"):
            h = self.residual(name, h, time)
        for name in self.blocks("upblocks"):
            if f"{name}.main.weight" in self.weights:
                h = self.conv(f"{name}.main", h.repeat_interleave(2, 2).repeat_interleave(2, 3))
            else:
                h = self.residual(name, torch.cat([h, skips.pop()], 1), time)
        return self.conv("tail.2", _swish(self.norm("tail.0", h)), slim=False)

    def blocks(self, path: str) -> list[str]:
        count = len({name.split(".")[1] for name in self.weights if name.startswith(f"{path}.")})
        return [f"{path}.{i}" for i in range(count)]


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def random_weights(
    base: int, multipliers: list[int], blocks: int, attention: set[int], times: int = 1000, seed: int = 0
) -> Weights:
    """Tensors under DDSM's names and of its shapes, all random but the table of sines and cosines."""
    made = _Shapes(seed)
    table = torch.arange(times).float()[:, None] * torch.exp(-torch.arange(0, base, 2) / base * math.log(10000))
    made.weights["time_embedding.timembedding.0.weight"] = torch.stack([table.sin(), table.cos()], 2).flatten(1)
    made.layer("time_embedding.timembedding.1", 4 * base, base)
    made.layer("time_embedding.timembedding.3", 4 * base, 4 * base)
    made.layer("head", base, 3, 3)
    now, position, skips = base, 0, [base]
    for level, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            made.residual(f"downblocks.{position}", now, base * multiplier, 4 * base, level in attention)
            now, position = base * multiplier, position + 1
            skips.append(now)
        if level < len(multipliers) - 1:
            made.layer(f"downblocks.{position}.main", now, now, 3)
            position += 1
            skips.append(now)
    made.residual("middleblocks.0", now, now, 4 * base, True)
    made.residual("middleblocks.1", now, now, 4 * base, False)
    position = 0
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for _ in range(blocks + 1):
            inputs = now + skips.pop()
            made.residual(f"upblocks.{position}", inputs, base * multiplier, 4 * base, level in attention)
            now, position = base * multiplier, position + 1
        if level:
            made.layer(f"upblocks.{position}.main", now, now, 3)
            position += 1
    made.norm("tail.0", now)
    made.layer("tail.2", 3, now, 3)
    return made.weights


class _Shapes:
    def __init__(self, seed: int) -> None:
        self.weights: Weights = {}
        self.generator = torch.Generator().manual_seed(seed)

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def layer(self, name: str, outputs: int, inputs: int, kernel: int | None = None) -> None:
        window = (kernel, kernel) if kernel else ()
        self.weights[f"{name}.weight"] = self.random(outputs, inputs, *window) / math.sqrt(inputs * math.prod(window))
        self.weights[f"{name}.bias"] = 0.3 * self.random(outputs)

    def norm(self, name: str, channels: int) -> None:
        self.weights[f"{name}.weight"] = 1 + 0.3 * self.random(channels)
        self.weights[f"{name}.bias"] = 0.3 * self.random(channels)

    def residual(self, name: str, inputs: int, outputs: int, time: int, attend: bool) -> None:
        self.norm(f"{name}.block1.0", inputs)
        self.layer(f"{name}.block1.2", outputs, inputs, 3)
        self.layer(f"{name}.temb_proj.1", outputs, time)
        self.norm(f"{name}.block2.0", outputs)
        self.layer(f"{name}.block2.3", outputs, outputs, 3)
        if inputs != outputs:
            self.layer(f"{name}.shortcut", outputs, inputs, 1)
        if attend:
            self.norm(f"{name}.attn.group_norm", outputs)
            for part in ("proj_q", "proj_k", "proj_v", "proj"):
                self.layer(f"{name}.attn.{part}", outputs, outputs, 1)
