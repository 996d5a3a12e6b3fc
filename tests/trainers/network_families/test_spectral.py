"""Spectral Diffusion: the Haar transform, wavelet gates, and a network of them at several widths.

The golden numbers are those of PyWavelets 1.8.0 and of the formulas in numpy, on numpy's RandomState.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.random import RandomState
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.network_families.haar import haar, inverse_haar
from stepfront.trainers.network_families.spectral import BandGates, WaveletDouble, WaveletHalve, build_spectral
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.networks.supernet import Supernet

SETTINGS = NetworkSettings(family="spectral", base=8, multipliers=(1, 2), groups=4, group_channels=2)
NO_TIME = torch.zeros(1)


def golden(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(RandomState(seed).randn(*shape))


# --- the transform ----------------------------------------------------------------------------------------------------


def test_the_bands_are_those_of_pywavelets() -> None:
    bands = haar(golden(0, 1, 1, 8, 8))[0, :, 0]
    sums = [0.5142976198, 0.5857528620, 0.4019296275, 2.9739080653]
    squares = [22.4811198012, 14.1532586425, 23.3705962785, 11.9661930320]
    assert bands.sum((1, 2)).tolist() == pytest.approx(sums, abs=1e-9)
    assert bands.square().sum((1, 2)).tolist() == pytest.approx(squares, abs=1e-9)
    assert bands[:, 0, 0].tolist() == pytest.approx([1.2357946022, 0.9284149521, 0.4250388919, 0.9388562457], abs=1e-9)
    last = [-1.0696396211, 1.4697892633, 0.2283111107, -0.6848252096]
    assert bands[:, 3, 3].tolist() == pytest.approx(last, abs=1e-9)


def test_the_bands_of_several_images_and_channels_are_those_of_pywavelets() -> None:
    bands = haar(golden(3, 2, 4, 8, 8))
    sums = [1.492057589607, 20.177194610850, 0.979300381356, 5.659997407219]
    assert bands.sum((0, 2, 3, 4)).tolist() == pytest.approx(sums, abs=1e-9)
    one = [0.710431752438, 0.592902722890, 1.039263771343, -1.229712357432]
    assert bands[1, :, 3, 2, 1].tolist() == pytest.approx(one, abs=1e-9)


def test_the_inverse_returns_the_images_and_both_keep_the_energy() -> None:
    x = golden(1, 3, 5, 6, 4)
    torch.testing.assert_close(inverse_haar(haar(x)), x)
    torch.testing.assert_close(haar(x).square().sum(), x.square().sum())
    bands = golden(2, 3, 4, 5, 3, 2)
    torch.testing.assert_close(haar(inverse_haar(bands)), bands)


# --- the gates --------------------------------------------------------------------------------------------------------


def draw_gates(random: RandomState, inputs: int) -> tuple[Tensor, ...]:
    """Return W1, b1, W2 and b2 of the golden gates of 4 channels."""
    first, bias = random.randn(8, inputs) / np.sqrt(inputs), 0.1 * random.randn(8)
    second, other_bias = random.randn(16, 8) / np.sqrt(8), 0.1 * random.randn(16)
    return tuple(map(torch.from_numpy, (first, bias, second, other_bias)))


def set_gates(gates: BandGates, *weights: Tensor) -> None:
    for layer, (weight, bias) in zip((gates.inner, gates.outer), (weights[:2], weights[2:]), strict=True):
        layer.load_state_dict({"weight": weight, "bias": bias})


def test_halving_gives_the_golden_numbers() -> None:
    halve = WaveletHalve(4, SETTINGS).double()
    set_gates(halve.gates, *draw_gates(RandomState(5), 4))
    with torch.no_grad():
        halved = halve(golden(3, 2, 4, 8, 8), NO_TIME)
    assert halved.shape == (2, 4, 4, 4)
    assert halved.sum().item() == pytest.approx(14.4416981058, abs=1e-9)
    assert halved.square().sum().item() == pytest.approx(133.2534948692, abs=1e-9)
    assert halved[0, 0, 0, 0].item() == pytest.approx(1.8322691296, abs=1e-9)


def test_doubling_gives_the_golden_numbers() -> None:
    random = RandomState(5)
    draw_gates(random, 4)
    first, second = random.randn(8, 16) / 4, random.randn(16, 8) / np.sqrt(8)
    double = WaveletDouble(4, SETTINGS).double()
    double.conv = nn.Identity()  # the golden input is the four bands
    zeros = torch.zeros(16, dtype=torch.float64)
    set_gates(double.gates, torch.from_numpy(first), zeros[:8], torch.from_numpy(second), zeros)
    with torch.no_grad():
        doubled = double(golden(6, 2, 16, 4, 4), NO_TIME)
    assert doubled.shape == (2, 4, 8, 8)
    assert doubled.sum().item() == pytest.approx(21.9391663940, abs=1e-9)
    assert doubled.square().sum().item() == pytest.approx(123.8979497210, abs=1e-9)
    assert doubled[1, 3, 7, 7].item() == pytest.approx(0.0762340964, abs=1e-9)


def test_equal_gates_halve_to_every_second_pixel_and_those_of_a_start_to_nearly_the_mean() -> None:
    halve, x = WaveletHalve(3, SETTINGS), torch.randn(2, 3, 8, 8)
    mean = 2 * F.avg_pool2d(x, 2)
    with torch.no_grad():
        begin = halve(x, NO_TIME)
        halve.gates.outer.bias.zero_()
        torch.testing.assert_close(halve(x, NO_TIME), x[..., ::2, ::2])
    gate = 1 / (1 + np.exp(-2))
    torch.testing.assert_close(begin, (2 * gate - 1) * mean + (1 - gate) * 2 * x[..., ::2, ::2])


def test_a_narrow_gate_keeps_its_channels_of_every_band_and_eight_hidden_units() -> None:
    supernet = Supernet(SETTINGS, 1, 8)
    wide = dict(supernet.widest.named_parameters())
    sliced = supernet.sliced(0.25)
    assert wide["down.1.gates.outer.weight"].shape == (4 * 8, 8)
    rows = torch.tensor([band * 8 + channel for band in range(4) for channel in range(2)])
    assert torch.equal(sliced["down.1.gates.outer.weight"], wide["down.1.gates.outer.weight"][rows])
    assert torch.equal(sliced["down.1.gates.inner.weight"], wide["down.1.gates.inner.weight"][:, :2])
    bands = torch.tensor([band * 16 + channel for band in range(4) for channel in range(4)])
    assert torch.equal(sliced["up.2.conv.weight"], wide["up.2.conv.weight"][bands][:, :4])
    assert torch.equal(sliced["up.2.gates.inner.weight"], wide["up.2.gates.inner.weight"][:, bands])


# --- the network ------------------------------------------------------------------------------------------------------


def test_macs_are_those_of_the_unet_less_its_strided_convolutions_plus_the_gates() -> None:
    settings = SETTINGS.model_copy(update={"multipliers": (1, 2, 2), "base": 64})
    for width in (0.25, 1.0):
        c = round(64 * width)
        unet = count_width(settings.model_copy(update={"family": "unet"}), 1, 16, width).macs
        strided = 9 * c * c * 8**2 + 9 * (2 * c) ** 2 * 4**2
        # Each halving has gates that read C channels, each doubling gates that read 4 C; both give 4 C numbers.
        gates = sum((reads + 4) * at * max(8, at // 4) for reads, at in ((1, c), (1, 2 * c), (4, 2 * c), (4, 2 * c)))
        assert count_width(settings, 1, 16, width).macs == unet - strided + gates


def test_images_that_cannot_be_halved_at_a_level_are_refused() -> None:
    settings = SETTINGS.model_copy(update={"multipliers": (1, 2, 2, 2)})
    with pytest.raises(InputError, match=r"28 pixels can't be halved 3 times.*data\.size"):
        build_spectral(settings, 1, 28, 1.0)
    with torch.device("meta"):
        build_spectral(settings.model_copy(update={"multipliers": (1, 2, 2)}), 1, 28, 1.0)


def test_padding_of_strided_convolutions_is_refused() -> None:
    with pytest.raises(InputError, match=r"network\.halving end .* family spectral has none"):
        build_backbone(SETTINGS.model_copy(update={"halving": "end"}), 1, 8, 1.0)
