"""The preset of DiT-XL/2: what its comment says it costs is what is counted on the meta device."""

from __future__ import annotations

import pytest

from stepfront.search.config import RunSettings
from stepfront.search.presets import preset, preset_text
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.validation import validate

NAME = "imagenet-256-dit-xl2"


def test_the_preset_of_dit_xl2_costs_what_it_says() -> None:
    settings, text = validate(RunSettings, preset(NAME)), preset_text(NAME)
    channels, side = 4, 256 // 8  # latents of Stable Diffusion's autoencoder
    costs = {width: count_width(settings.network, channels, side, width) for width in settings.network.widths}
    assert f"{costs[1.0].parameters / 1e6:.1f} million parameters" in text
    assert costs[1.0].macs == pytest.approx(118.6e9, rel=1e-3)
    gmacs = [f"{cost.macs / 1e9:.1f}" for cost in reversed(costs.values())]
    assert f"{', '.join(gmacs[:-1])} and {gmacs[-1]} GMACs per latent" in text
    # Forward and backward are three forward passes; FLOPs are two per MAC.  The middle pass has one width in between.
    passes = costs[1.0].macs + costs[0.25].macs + (costs[0.5].macs + costs[0.75].macs) / 2
    flops = 6 * passes * settings.training.steps * settings.training.batch
    assert f"{flops:.1e}".replace("e+", "e") + " FLOPs" in text
    assert round(flops / 50e12 / 3600) == 601
