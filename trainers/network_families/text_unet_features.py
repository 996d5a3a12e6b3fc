"""Run a UNet2DConditionModel of diffusers in two parts: all levels, or the outermost on deep features of another call.

The features are what the outermost level takes from below, as in DeepCache (Ma et al. 2024, arXiv 2312.00858).  Needs
torch alone: exported pipelines contain this file.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def with_features(unet: Any, x: Tensor, t: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a call on x [B, C, H, W], t [B] and text [B, L, D] returns, and its deep features [B, D, H, W]."""
    time = _time(unet, x, t)
    h = unet.conv_in(x)
    skips = [h]
    for block in unet.down_blocks:
        h, more = _down(block, h, time, text)
        skips += more
    if unet.mid_block is not None:
        reads_text = getattr(unet.mid_block, "has_cross_attention", False)
        h = unet.mid_block(h, time, **({"encoder_hidden_states": text} if reads_text else {}))
    for block in unet.up_blocks[:-1]:
        h = _up(block, h, skips, time, text)
    return _outermost(unet, h, skips, time, text), h


def reusing(unet: Any, deep: Tensor, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
    """Return the output of the outermost level on deep features [B, D, H, W] of another call."""
    time = _time(unet, x, t)
    h = unet.conv_in(x)
    outer = unet.up_blocks[-1]
    _, more = _down(unet.down_blocks[0], h, time, text)
    return _outermost(unet, deep, [h, *more][: len(outer.resnets)], time, text)


def _time(unet: Any, x: Tensor, t: Tensor) -> Tensor:
    time: Tensor = unet.time_embedding(unet.get_time_embed(sample=x, timestep=t))
    return time if unet.time_embed_act is None else unet.time_embed_act(time)


def _down(block: Any, h: Tensor, time: Tensor, text: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    reads_text = getattr(block, "has_cross_attention", False)
    found: tuple[Tensor, tuple[Tensor, ...]] = block(
        hidden_states=h, temb=time, **({"encoder_hidden_states": text} if reads_text else {})
    )
    return found


def _up(block: Any, h: Tensor, skips: list[Tensor], time: Tensor, text: Tensor) -> Tensor:
    own = tuple(skips[-len(block.resnets) :])
    del skips[-len(block.resnets) :]
    reads_text = getattr(block, "has_cross_attention", False)
    more = {"encoder_hidden_states": text} if reads_text else {}
    found: Tensor = block(hidden_states=h, temb=time, res_hidden_states_tuple=own, **more)
    return found


def _outermost(unet: Any, deep: Tensor, skips: list[Tensor], time: Tensor, text: Tensor) -> Tensor:
    h = _up(unet.up_blocks[-1], deep, skips, time, text)
    if unet.conv_norm_out is not None:
        h = unet.conv_act(unet.conv_norm_out(h))
    output: Tensor = unet.conv_out(h)
    return output
