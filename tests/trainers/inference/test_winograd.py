"""Winograd convolutions: what the layer computes, whatever the shape and the chunk."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stepfront.trainers.inference import winograd
from stepfront.trainers.inference.winograd import WinogradConv2d, suits, use_winograd
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet


def layer_of(inputs: int, outputs: int, dtype: torch.dtype, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(inputs + 100 * outputs)
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias, dtype=dtype).requires_grad_(False)


def images(count: int, channels: int, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("size", [(4, 4), (6, 6), (7, 7), (8, 12), (14, 14), (28, 28), (3, 32)])
@pytest.mark.parametrize("channels", [(5, 5), (3, 8), (8, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution_exactly(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], channels: tuple[int, int], bias: bool
) -> None:
    """In float64 nothing hides: an identity of polynomials, not an approximation."""
    layer = layer_of(*channels, torch.float64, bias)
    x = images(3, channels[0], size, torch.float64)
    expected = layer(x)
    monkeypatch.setattr(winograd.F, "conv2d", None)  # by tiles, and by nothing else
    torch.testing.assert_close(WinogradConv2d(layer)(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [(16, 16), (14, 14)])
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_in_float32_it_loses_little_and_is_channels_last(size: tuple[int, int], format: torch.memory_format) -> None:
    layer, x = layer_of(96, 64, torch.float32), images(4, 96, size, torch.float32)
    expected = layer.double()(x.double())
    found = WinogradConv2d(layer.float())(x.to(memory_format=format))
    assert found.is_contiguous(memory_format=torch.channels_last)
    error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert 1e-6 < error < 1e-5  # the sum itself has 2e-7: it is another algorithm


@pytest.mark.parametrize("count", [1, 4, 5, 7])
def test_images_do_not_know_of_their_chunk(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Also where the last chunk is shorter, and its buffers still hold the one before."""
    layer = layer_of(6, 4, torch.float64)
    x = images(count, 6, (8, 8), torch.float64)
    x[-1] = torch.inf  # what stays in a buffer must not come back in another image either
    monkeypatch.setattr(winograd, "CHUNK_BYTES", 0)
    monkeypatch.setattr(winograd, "LEAST_TILES", 4 * 2)  # two images of four tiles
    found = WinogradConv2d(layer)(x)
    torch.testing.assert_close(found[:-1], layer(x[:-1]), rtol=0, atol=1e-13)
    assert not found[-1].isfinite().any()


def test_what_tiles_would_not_spare_is_left_to_the_layer() -> None:
    layer = layer_of(4, 4, torch.float32)
    fast = WinogradConv2d(layer)
    for size in ((2, 2), (1, 8), (5, 5)):
        x = images(2, 4, size, torch.float32)
        assert torch.equal(fast(x), layer(x))
    assert fast(images(0, 4, (8, 8), torch.float32)).shape == (0, 4, 8, 8)


def test_only_plain_3x3_convolutions_of_enough_channels_are_replaced() -> None:
    assert suits(nn.Conv2d(96, 96, 3, padding=1))
    assert suits(nn.Conv2d(192, 64, 3, padding=1, bias=False))
    for other in (
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv2d(256, 3, 3, padding=1),
        nn.Conv2d(96, 96, 3, padding=1, stride=2),
        nn.Conv2d(96, 96, 3, padding=0),
        nn.Conv2d(96, 96, 3, padding=2, dilation=2),
        nn.Conv2d(96, 96, 1),
        nn.Conv2d(96, 96, 5, padding=2),
        nn.Conv2d(96, 96, 3, padding=1, groups=2),
        nn.Conv2d(96, 96, 3, padding=1, padding_mode="circular"),
        nn.Linear(96, 96),
    ):
        assert not suits(other)


@torch.inference_mode()
def test_a_network_keeps_its_predictions_and_the_shared_weights(
    monkeypatch: pytest.MonkeyPatch, network: NetworkSettings, random_supernet: Callable[..., Supernet]
) -> None:
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    supernet = random_supernet(network)
    fast, before = supernet.subnet(1.0), {k: v.clone() for k, v in supernet.widest.state_dict().items()}
    for _ in range(2):  # the second time there is nothing left to do
        use_winograd(fast)
    plain = supernet.subnet(1.0)
    replaced = [name for name, layer in fast.named_modules() if isinstance(layer, WinogradConv2d)]
    assert replaced == [name for name, layer in plain.named_modules() if suits(layer)]
    assert len(replaced) > 10
    x, t = images(4, 1, (8, 8), torch.float32), torch.full((4,), 500.0)
    torch.testing.assert_close(fast(x, t), plain(x, t), rtol=0, atol=1e-4 * float(plain(x, t).std()))
    assert all(torch.equal(value, before[name]) for name, value in supernet.widest.state_dict().items())
    fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shared = supernet.widest.state_dict()
    for name in replaced:  # the weights stay those that other processes share
        assert fast.get_submodule(name)._direct[0].data_ptr() == shared[f"{name}.weight"].data_ptr()
