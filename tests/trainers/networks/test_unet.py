"""The U-Net at one width."""

import math

import pytest
import torch
from torch import nn

from stepfront.errors import InputError
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.layers import conv, groups_for, linear, norm, parameter_segments
from stepfront.trainers.networks.unet import build_unet, frequencies, missing_attention, sinusoid
from stepfront.trainers.networks.unet_blocks import Attention, Halve


def test_sinusoid_is_the_closed_form() -> None:
    times = torch.tensor([0.0, 1.0, 500.5])
    rows = sinusoid(times, 6)
    for row, t in zip(rows.tolist(), times.tolist(), strict=True):
        expected = [f(t * 10000 ** (-2 * i / 6)) for i in range(3) for f in (math.sin, math.cos)]
        assert row == pytest.approx(expected, abs=1e-4)


def test_sinusoid_of_an_odd_size_has_that_size() -> None:
    assert sinusoid(torch.arange(3.0), 5).shape == (3, 5)


@pytest.mark.parametrize("channels", [2, 3, 5, 6, 7, 8, 12, 40, 48, 96, 112, 128, 224])
@pytest.mark.parametrize(("most", "fewest"), [(32, 4), (4, 2), (8, 1)])
def test_groups_divide_the_channels(channels: int, most: int, fewest: int) -> None:
    groups = groups_for(channels, most, fewest)
    assert channels % groups == 0
    assert 1 <= groups <= most
    assert groups == 1 or channels // groups >= fewest
    larger = [g for g in range(groups + 1, most + 1) if channels % g == 0 and channels // g >= fewest]
    assert not larger


def test_groups_of_ddsm_at_full_width_are_the_usual_32() -> None:
    assert groups_for(128, 32, 4) == groups_for(256, 32, 4) == 32


def test_first_prediction_is_zero_and_has_the_image_shape() -> None:
    unet = build_unet(NetworkSettings(base=8, multipliers=(1, 2, 2)), 3, 16, 0.5)
    predicted = unet(torch.randn(2, 3, 16, 16), torch.tensor([0.0, 999.0]))
    assert torch.equal(predicted, torch.zeros(2, 3, 16, 16))


def test_resolution_that_cannot_be_halved_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"10 pixels can't be halved 2 times.*data\.size.*fewer multipliers"):
        build_unet(NetworkSettings(base=8, multipliers=(1, 2, 2)), 1, 10, 1.0)


def test_attention_stands_at_the_asked_resolutions_and_in_the_middle() -> None:
    settings = NetworkSettings(base=8, multipliers=(1, 2, 2), attention=(8,))
    unet = build_unet(settings, 1, 16, 1.0)
    found = [name.removesuffix(".attention") for name, m in unet.named_modules() if isinstance(m, Attention)]
    # down: block, halve, block (8x8), halve, block; up: two of 4x4, double, two of 8x8, double, two of 16x16
    assert found == ["down.2", "middle.0", "up.3", "up.4"]


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    attention = Attention(6, NetworkSettings(base=8, groups=2, group_channels=1))
    for weights in attention.parameters():
        nn.init.normal_(weights, std=0.5)
    theirs = nn.MultiheadAttention(6, 1, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(attention.qkv.weight[:, :, 0, 0])
        theirs.in_proj_bias.copy_(attention.qkv.bias)
        theirs.out_proj.weight.copy_(attention.out.weight[:, :, 0, 0])
        theirs.out_proj.bias.copy_(attention.out.bias)
        x = torch.randn(2, 6, 4, 4)
        pixels = attention.norm(x).flatten(2).transpose(1, 2)
        expected = x + theirs(pixels, pixels, pixels)[0].transpose(1, 2).reshape(x.shape)
        torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_attention_of_several_heads_is_that_of_torch_with_the_first_heads(width: float) -> None:
    torch.manual_seed(0)
    settings = NetworkSettings(base=12, groups=2, group_channels=1, head_channels=3)
    channels = round(12 * width)
    attention = Attention(channels, settings)
    for weights in attention.parameters():
        nn.init.normal_(weights, std=0.5)
    theirs = nn.MultiheadAttention(channels, channels // 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(attention.qkv.weight[:, :, 0, 0])
        theirs.in_proj_bias.copy_(attention.qkv.bias)
        theirs.out_proj.weight.copy_(attention.out.weight[:, :, 0, 0])
        theirs.out_proj.bias.copy_(attention.out.bias)
        x = torch.randn(2, channels, 4, 4)
        pixels = attention.norm(x).flatten(2).transpose(1, 2)
        expected = x + theirs(pixels, pixels, pixels)[0].transpose(1, 2).reshape(x.shape)
        torch.testing.assert_close(attention(x), expected)


def test_part_of_a_head_is_refused() -> None:
    settings = NetworkSettings(base=8, multipliers=(1,), head_channels=8, widths=(0.5, 1.0))
    build_unet(settings, 1, 8, 1.0)
    with pytest.raises(InputError, match="4 channels of attention are not a multiple of 8 channels per head"):
        build_unet(settings, 1, 8, 0.5)


def test_halving_that_pads_at_the_end_reads_from_each_even_pixel_on() -> None:
    for halving, first in (("centred", -1), ("end", 0)):
        halve = Halve(2, NetworkSettings(base=8).model_copy(update={"halving": halving}))
        x, middle = torch.zeros(1, 2, 8, 8), 4
        x[0, 0, middle, middle] = 1.0
        with torch.no_grad():
            seen = halve(x, torch.zeros(1))[0, 1] - halve(torch.zeros_like(x), torch.zeros(1))[0, 1]
        expected = torch.zeros(4, 4)
        for i in range(4):
            for j in range(4):
                row, column = middle - (2 * i + first), middle - (2 * j + first)
                if 0 <= row < 3 and 0 <= column < 3:
                    expected[i, j] = halve.conv.weight[1, 0, row, column].item()
        torch.testing.assert_close(seen, expected)


@pytest.mark.parametrize("size", [16, 48, 224])
def test_frequencies_are_one_closed_form_but_for_the_shift(size: int) -> None:
    pairs = size // 2
    for whose in ("plain", "ddsm", "diffusers", "diffusers_shifted"):
        last = pairs - (whose == "diffusers_shifted")
        expected = [10000 ** (-i / last) for i in range(pairs)]
        found = frequencies(size, whose, torch.device("cpu")).tolist()
        assert found == pytest.approx(expected, rel=1e-6)


def test_layers_remember_the_segments_of_their_axes() -> None:
    layers = nn.ModuleDict({"c": conv((4, 2), (3,), 3), "l": linear((5,), (7,)), "n": norm((4, 2), 4, 1)})
    assert parameter_segments(layers) == {
        "c.weight": ((3,), (4, 2)),
        "c.bias": ((3,),),
        "l.weight": ((7,), (5,)),
        "l.bias": ((7,),),
        "n.weight": ((4, 2),),
        "n.bias": ((4, 2),),
    }


def test_a_layer_without_segments_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"odd\.weight"):
        parameter_segments(nn.ModuleDict({"odd": nn.Linear(2, 2)}))


def test_attention_at_a_resolution_that_the_images_never_have_is_refused() -> None:
    settings = NetworkSettings(base=8, multipliers=(1, 2, 2), groups=4, attention=(16,))
    with pytest.raises(InputError, match=r"attention names 16, and images of 28 pixels never .* possible: 28, 14, 7"):
        build_unet(settings, 1, 28, 1.0)
    assert missing_attention(settings.model_copy(update={"attention": (14, 16, 3)}), 28) == [3, 16]
