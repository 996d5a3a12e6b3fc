"""Build the diffusion transformer DiT (Peebles & Xie 2023, arXiv 2212.09748) at one width, as a plain torch module.

It takes noisy images x [B, C, H, W] and times t [B] in training-time units, and returns the predicted noise
[B, C, H, W].  Images are cut into patches, one token each.  The sum of the embeddings of time and label gives each
block its shifts, scales and gates, all zero at first (adaLN-Zero, section 3.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.network_settings import DitSizes, NetworkSettings
from stepfront.trainers.networks.layers import embedding, linear
from stepfront.trainers.networks.unet import sinusoid

TIME_CHANNELS = 256
"""Length of the time's sinusoid, at every width and size."""

EPS = 1e-6
"""Added to the variance in layer norms."""


def build_dit(settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> DiT:
    """Build the transformer at `width`.  Raises InputError when the patches do not divide the images."""
    patch = settings.dit.patch
    if resolution % patch:
        possible = ", ".join(str(n) for n in range(1, resolution + 1) if resolution % n == 0)
        raise InputError(
            f"images of {resolution} pixels can't be cut into patches of {patch} (network.dit.patch); possible: "
            f"{possible}; or resize with data.size"
        )
    return DiT(settings, image_channels, width)


def positions(rows: int, columns: int, channels: int, device: torch.device) -> Tensor:
    """Return the fixed 2-D sinusoids [rows * columns, channels], float64.

    Channel 4i + k is, at frequency 10000^(-4i / channels), the sine and cosine of the column and those of the row, for
    k = 0 to 3.  The paper has all of one k together, so a prefix of its table would not know the row.
    """
    rates = 10000.0 ** (-torch.arange(0, channels, 4, dtype=torch.float64, device=device) / channels)

    def waves(length: int) -> Tensor:
        angles = torch.arange(length, dtype=torch.float64, device=device)[:, None] * rates
        return torch.stack([angles.sin(), angles.cos()], dim=-1)

    across = waves(columns)[None].expand(rows, -1, -1, -1)
    down = waves(rows)[:, None].expand(-1, columns, -1, -1)
    return torch.cat([across, down], dim=-1).reshape(rows * columns, channels)


class DiT(nn.Module):
    """Tokens of patches, transformer blocks, and a linear map back to patches."""

    def __init__(self, settings: NetworkSettings, image_channels: int, width: float) -> None:
        super().__init__()
        own, sizes = settings.dit, settings.dit.sizes(width)
        self.patch, self.hidden = own.patch, own.hidden
        pixels, tokens = (image_channels * own.patch**2,), (sizes.tokens,)
        self.head = linear(pixels, tokens)
        embedders = own.depth if own.embedders == "per_block" else 1
        self.embedders = nn.ModuleList(Embedder(settings, sizes.tokens) for _ in range(embedders))
        self.blocks = nn.ModuleList(Block(sizes, own.mlp_norm_eps) for _ in range(own.depth))
        self.modulation = linear(tokens, tokens * 2)
        self.tail = linear(tokens, pixels)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise as the paper's code does: the blocks are identities, and the first prediction is zero."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        for embedder in self.embedders:
            for parameter in embedder.parameters():
                if parameter.ndim == 2:
                    nn.init.normal_(parameter, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith("modulation.weight") or name == "tail.weight":
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the predicted noise [B, C, H, W].

        Labels [B] count from 0.  The null class is the number of classes, or no label at all.
        """
        rows, columns = x.shape[2] // self.patch, x.shape[3] // self.patch
        h = self.head(_to_patches(x, self.patch))
        # A slice of the widest table: another table of fewer channels would have other frequencies.
        h = h + positions(rows, columns, self.hidden, x.device)[:, : h.shape[-1]].to(h.dtype)
        conditions = [embedder(t, label, x.dtype) for embedder in self.embedders]
        for i, block in enumerate(self.blocks):
            h = block(h, conditions[i % len(conditions)])
        shift, scale = self.modulation(conditions[0])[:, None].chunk(2, dim=-1)
        return _to_images(self.tail(_norm(h, EPS) * (1 + scale) + shift), rows, columns, self.patch)


class Embedder(nn.Module):
    """The sum of the embeddings of times and labels, after the SiLU that every reader applies: [B, channels]."""

    def __init__(self, settings: NetworkSettings, channels: int) -> None:
        super().__init__()
        self.frequencies = settings.frequencies
        self.time = nn.Sequential(linear((TIME_CHANNELS,), (channels,)), nn.SiLU(), linear((channels,), (channels,)))
        self.label = embedding(settings.classes + 1, (channels,)) if settings.classes else None

    def forward(self, t: Tensor, label: Tensor | None, dtype: torch.dtype) -> Tensor:
        condition = self.time(sinusoid(t, TIME_CHANNELS, self.frequencies).to(dtype))
        if self.label is not None:
            if label is None:
                label = torch.full((len(t),), self.label.num_embeddings - 1, device=t.device)
            condition = condition + self.label(label)
        return F.silu(condition)


class Block(nn.Module):
    """Attention and an MLP, each between a modulated layer norm and a gate; a narrow one has the first heads."""

    def __init__(self, sizes: DitSizes, mlp_norm_eps: float) -> None:
        super().__init__()
        tokens, attention, mlp = (sizes.tokens,), (sizes.attention,), (sizes.mlp,)
        self.heads, self.mlp_norm_eps = sizes.heads, mlp_norm_eps
        self.modulation = linear(tokens, tokens * 6)
        self.qkv = linear(tokens, attention * 3)
        self.out = linear(attention, tokens)
        self.mlp = nn.Sequential(linear(tokens, mlp), nn.GELU(approximate="tanh"), linear(mlp, tokens))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(condition)[:, None].chunk(6, dim=-1)
        x = x + gate * self._attend(_norm(x, EPS) * (1 + scale) + shift)
        mixed: Tensor = x + mlp_gate * self.mlp(_norm(x, self.mlp_norm_eps) * (1 + mlp_scale) + mlp_shift)
        return mixed

    def _attend(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, -1))
        return mixed


def _norm(x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _to_patches(x: Tensor, patch: int) -> Tensor:
    """Return the patches [B, rows * columns, C * patch * patch] of x [B, C, H, W]."""
    batch, channels, height, width = x.shape
    rows, columns = height // patch, width // patch
    cut = x.reshape(batch, channels, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(batch, rows * columns, channels * patch * patch)


def _to_images(patches: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """Return images [B, C, H, W] of patches [B, rows * columns, patch * patch * C]; the channel comes last here."""
    batch = patches.shape[0]
    cut = patches.reshape(batch, rows, columns, patch, patch, -1).permute(0, 5, 1, 3, 2, 4)
    return cut.reshape(batch, -1, rows * patch, columns * patch)
