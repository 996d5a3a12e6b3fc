"""The gradients of a step: those that autograd computes from slices of the widest network, under every engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.layers import parameter_segments, shared_views
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.training.batches import NoisyBatch
from stepfront.trainers.training.width_gradients import WidthGradients

FLOAT32 = torch.autocast("cpu", torch.bfloat16, enabled=False)


def some_batch(classes: int | None, images: int = 3) -> NoisyBatch:
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, images, 1, 8, 8, generator=generator)
    label = None if classes is None else torch.arange(images) % classes
    return NoisyBatch(x, torch.tensor([3, 500, 999])[:images], eps, label)


def by_autograd(supernet: Supernet, batch: NoisyBatch, widths: list[float]) -> dict[str, Tensor]:
    """Return the gradients through `Supernet.forward`, which slices the weights in every call."""
    names, weights = zip(*supernet.widest.named_parameters(), strict=True)
    losses = [F.mse_loss(supernet(batch.x, batch.t, width, batch.label), batch.target) * 0.5 for width in widths]
    return dict(zip(names, torch.autograd.grad(sum(losses), weights), strict=True))


@pytest.mark.parametrize("engine", ["plain", "channels_last"])
@pytest.mark.parametrize("changes", [{}, {"skips": "prefix"}, {"classes": 2}, {"attention": (4,), "head_channels": 2}])
def test_gradients_are_those_of_slicing_in_every_call(
    network: NetworkSettings, random_supernet: Callable[..., Supernet], engine: Any, changes: dict[str, Any]
) -> None:
    supernet = random_supernet(network.model_copy(update=changes)).train().requires_grad_(True)
    batch = some_batch(changes.get("classes"))
    expected = by_autograd(supernet, batch, list(supernet.widths))
    gradients = WidthGradients(supernet, engine, FLOAT32)
    for width in supernet.widths:
        predicted = gradients.add(width, batch, batch.target, 0.5)
        torch.testing.assert_close(predicted, supernet(batch.x, batch.t, width, batch.label), rtol=1e-4, atol=1e-5)
    for name, weights in supernet.widest.named_parameters():
        torch.testing.assert_close(weights.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_narrow_networks_follow_the_weights_of_the_widest(
    network: NetworkSettings, random_supernet: Callable[..., Supernet]
) -> None:
    supernet, batch = random_supernet(network).train().requires_grad_(True), some_batch(None)
    gradients = WidthGradients(supernet, "plain", FLOAT32)
    before = gradients.add(0.5, batch, batch.target, 1.0)
    with torch.no_grad():
        for weights in supernet.widest.parameters():
            weights.mul_(0.9)
    after = gradients.add(0.5, batch, batch.target, 1.0)
    torch.testing.assert_close(after, supernet(batch.x, batch.t, 0.5), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, after)


def test_views_cover_the_narrow_parameter_once_and_hold_its_slices(
    network: NetworkSettings, random_supernet: Callable[..., Supernet]
) -> None:
    supernet = random_supernet(network)
    narrow, wide = supernet.subnet(0.5), dict(supernet.widest.named_parameters())
    segments, wide_segments = parameter_segments(narrow), parameter_segments(supernet.widest)
    for name, own in narrow.named_parameters():
        counted = torch.zeros_like(own)
        for wide_view, count in shared_views(wide[name], counted, wide_segments[name], segments[name]):
            assert wide_view.shape == count.shape
            count += 1
        assert bool((counted == 1).all())
        for wide_view, own_view in shared_views(wide[name], own, wide_segments[name], segments[name]):
            assert torch.equal(wide_view, own_view)


def test_an_engine_of_gpus_is_refused_on_a_cpu(
    network: NetworkSettings, random_supernet: Callable[..., Supernet]
) -> None:
    with pytest.raises(InputError, match=r"training\.engine cuda_graphs needs a GPU.*possible here: plain"):
        WidthGradients(random_supernet(network), "cuda_graphs", FLOAT32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("engine", ["cuda_graphs", "compiled_cuda_graphs"])
def test_a_recorded_step_adds_the_same_gradients(
    network: NetworkSettings, random_supernet: Callable[..., Supernet], engine: Any
) -> None:
    device = torch.device("cuda")
    supernet = random_supernet(network).train().requires_grad_(True).to(device)
    batch = NoisyBatch(*(None if each is None else each.to(device) for each in some_batch(None)))  # type: ignore[arg-type]
    expected = by_autograd(supernet, batch, [0.5, 1.0])
    gradients = WidthGradients(supernet, engine, torch.autocast("cuda", torch.bfloat16, enabled=False))
    for width in (0.5, 1.0):
        gradients.record(width, batch, 0.5)
    for _ in range(2):  # a replay works as often as it is asked for
        for weights in supernet.widest.parameters():
            weights.grad.zero_()
        for width in (0.5, 1.0):
            gradients.add(width, batch, batch.target, 0.5)
        for name, weights in supernet.widest.named_parameters():
            torch.testing.assert_close(weights.grad, expected[name], rtol=1e-2, atol=1e-4)
