"""Presets of published latent models: what their comments say they are is what is counted on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stepfront.search.config import RunSettings
from stepfront.search.presets import preset, preset_text
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.validation import validate


def words_of(name: str) -> str:
    """Return a preset's comment as one line."""
    return " ".join(line.lstrip("# ").strip() for line in preset_text(name).splitlines() if line.startswith("#"))


def test_ldm_on_lsun_bedrooms_costs_what_it_says() -> None:
    settings, text = validate(RunSettings, preset("lsun-bedroom-256-ldm")), words_of("lsun-bedroom-256-ldm")
    costs = {width: count_width(settings.network, 3, 256 // 4, width) for width in settings.network.widths}
    assert costs[1.0].parameters == 274_056_163  # published: 274 M
    assert "274.1 million parameters" in text
    gmacs = [f"{cost.macs / 1e9:.1f}" for cost in reversed(costs.values())]
    assert f"{', '.join(gmacs[:-1])} and {gmacs[-1]} GMACs per latent" in text
    # Forward and backward are three forward passes; FLOPs are two per MAC.  The middle pass has one width in between.
    passes = costs[1.0].macs + costs[0.25].macs + (costs[0.5].macs + costs[0.75].macs) / 2
    flops = 6 * passes * settings.training.steps * settings.training.batch
    assert f"{flops:.1e}".replace("e+", "e") + " FLOPs" in text
    assert f"{flops / 50e12 / 3600:.0f} hours" in text


def test_ldm_is_the_unet2dmodel_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        theirs = diffusers.UNet2DModel(
            sample_size=64,
            block_out_channels=(224, 448, 672, 896),
            down_block_types=("DownBlock2D", *("AttnDownBlock2D",) * 3),
            up_block_types=(*("AttnUpBlock2D",) * 3, "UpBlock2D"),
            attention_head_dim=32,
        ).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            theirs(torch.empty(1, 3, 64, 64), 1)
    settings = validate(RunSettings, preset("lsun-bedroom-256-ldm"))
    assert counter.get_total_flops() // 2 == count_width(settings.network, 3, 64, 1.0).macs
    assert sum(weights.numel() for weights in theirs.parameters()) == 274_056_163


def test_stable_diffusion_15_costs_what_it_says() -> None:
    pytest.importorskip("diffusers")
    settings, text = validate(RunSettings, preset("stable-diffusion-15")), words_of("stable-diffusion-15")
    network = settings.network
    cost = count_width(network, 4, 64, 1.0)
    prompts = 1001 * 77 * 768
    assert cost.parameters - prompts == 859_520_964  # published
    assert f"859.5 million parameters, and {prompts / 1e6:.1f} million numbers of prompts" in text
    with torch.device("meta"):
        module = build_backbone(network, 4, 64, 1.0).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(torch.empty(1, 4, 64, 64), torch.empty(1))
    products = counter.get_flop_counts()["Global"][torch.ops.aten.bmm] // 2
    # Published: 338.7 GMACs (BK-SDM, src/count_macs_params.py), which leave out products of attention and add norms.
    assert cost.macs - products == pytest.approx(338_749_194_240, rel=1e-3)
    assert f"{cost.macs / 1e9:.1f} GMACs per call, of which {products / 1e9:.1f} are products" in text
    assert cost.reuse_macs is not None
    assert f"{cost.reuse_macs / 1e9:.1f} where deep features are reused" in text
    guided = 2 * cost.macs * 2 * settings.sampler.steps * settings.evaluation.images
    assert settings.budget.trials is not None
    assert f"{guided:.1e}".replace("e+", "e") + " FLOPs" in text
    assert f"{guided * settings.budget.trials / 50e12 / 3600:.0f} hours" in text
    decoding = _decoding_macs()
    assert f"without decoding, which takes {decoding / 1e9:.1f} GMACs more per image" in text
    assert f"({2 * decoding * settings.evaluation.images:.1e}".replace("e+", "e") + " FLOPs of 1,024 images)" in text


def _decoding_macs() -> int:
    """Return the MACs of decoding one image by the AutoencoderKL of Stable Diffusion."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        autoencoder = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
        ).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            autoencoder.decode(torch.empty(1, 4, 64, 64))
    assert sum(weights.numel() for weights in autoencoder.parameters()) == 83_653_863
    return counter.get_total_flops() // 2
