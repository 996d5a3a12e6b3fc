"""Channels sorted by importance: the network computes the same, and its first channels matter most."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stepfront.trainers.interop.channel_importance import Stream, arrange, sort_channels, streams
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.unet import UNet, build_unet

SETTINGS = {
    "plain": NetworkSettings(base=16, multipliers=(1, 2), attention=(8,), groups=4, group_channels=1),
    # 48 and 96 of 32 groups: groups of 3 that reach over the seam of a concatenation, beside groups of 1 and 2
    "groups over seams": NetworkSettings(base=32, multipliers=(1, 2, 2), blocks=2, attention=(4,), groups=32),
    "heads": NetworkSettings(base=16, multipliers=(1, 2), attention=(8, 4), head_channels=8, groups=8),
}


def stream(channels: int, *partitions: tuple[int, int]) -> Stream:
    """Channels with partitions (first, size)."""
    made = Stream(channels, torch.zeros(channels))
    for first, size in partitions:
        made.cut(first, size)
    return made


def groups(order: list[int], first: int, size: int) -> set[frozenset[int]]:
    """Return the channels that stand together in each piece of a partition."""
    pieces: dict[int, list[int]] = {}
    for place, channel in enumerate(order):
        pieces.setdefault((first + place) // size, []).append(channel)
    return {frozenset(piece) for piece in pieces.values()}


@pytest.mark.parametrize(
    "partitions",
    [
        [(0, 8)],
        [(0, 8), (0, 16)],
        [(0, 8), (0, 12)],
        [(0, 4), (256, 12)],
        [(0, 2), (40, 16), (7, 3)],
        [(0, 1), (0, 96)],
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_torn_apart(partitions: list[tuple[int, int]], seed: int) -> None:
    importance = torch.rand(96, generator=torch.Generator().manual_seed(seed))
    order = arrange(importance, stream(96, *partitions).cuts).tolist()
    assert sorted(order) == list(range(96))
    for first, size in partitions:
        # A group that began before this stream must keep its place; all others may change theirs.
        assert groups(order, first, size) == groups(list(range(96)), first, size)
        ends = {p: c for p, c in enumerate(order) if (first + p) // size in (first // size, (first + 95) // size)}
        if first % size:
            head = {p for p in ends if (first + p) // size == first // size}
            assert {order[p] for p in head} == head
        if (first + 96) % size:
            tail = {p for p in ends if (first + p) // size == (first + 95) // size}
            assert {order[p] for p in tail} == tail


def test_free_channels_are_sorted_and_groups_by_their_sum() -> None:
    importance = torch.tensor([1.0, 2.0, 9.0, 0.0, 3.0, 4.0])
    assert arrange(importance, []).tolist() == [2, 5, 4, 1, 0, 3]
    assert arrange(importance, stream(6, (0, 2)).cuts).tolist() == [2, 3, 5, 4, 1, 0]
    assert arrange(importance, stream(6, (0, 3)).cuts).tolist() == [2, 1, 0, 5, 4, 3]


def test_pieces_that_are_cut_alike_change_places_whole() -> None:
    importance = torch.tensor([0.0] * 24 + [0.0, 1.0] + [0.0] * 22)
    order = arrange(importance, stream(48, (0, 8), (0, 12)).cuts).tolist()
    assert set(order[:24]) == set(range(24, 48))  # 24 is where groups of 8 and of 12 end together
    assert order[0] == 25


@pytest.mark.parametrize("name", SETTINGS)
def test_every_channel_of_every_parameter_belongs_to_one_stream(name: str) -> None:
    network = build_unet(SETTINGS[name], 3, 16, 1.0)
    named = {id(weights): name for name, weights in network.named_parameters()}
    covered: dict[tuple[str, int], list[int]] = {}
    for found in streams(network):
        for weights, axis, first in found.places:
            covered.setdefault((named[id(weights)], axis), []).extend(range(first, first + found.channels))
    for name, weights in network.named_parameters():
        for axis in range(min(2, weights.ndim)):
            fixed = (name, axis) in {("time.0.weight", 1), ("head.weight", 1), ("tail.2.weight", 0), ("tail.2.bias", 0)}
            expected = [] if fixed else list(range(weights.shape[axis]))
            assert sorted(covered.get((name, axis), [])) == expected, (name, axis)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_sorted_network_computes_the_same(name: str, random_supernet: Callable[..., Supernet]) -> None:
    network = random_supernet(SETTINGS[name], 3, 16).widest.double()
    assert isinstance(network, UNet)
    x, t = torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.tensor([3.0, 900.0])
    with torch.no_grad():
        before, weights = network(x, t), {n: w.clone() for n, w in network.named_parameters()}
        sort_channels(network)
        torch.testing.assert_close(network(x, t), before, atol=1e-11, rtol=0)
    moved = [n for n, w in network.named_parameters() if not torch.equal(w, weights[n])]
    assert len(moved) > 0.9 * len(weights)


def test_sorting_twice_is_sorting_once(random_supernet: Callable[..., Supernet]) -> None:
    network = random_supernet(SETTINGS["groups over seams"], 3, 16).widest
    assert isinstance(network, UNet)
    sort_channels(network)
    once = {name: weights.clone() for name, weights in network.state_dict().items()}
    sort_channels(network)
    for name, weights in network.state_dict().items():
        assert torch.equal(weights, once[name]), name


def test_channels_that_nothing_reads_go_last(random_supernet: Callable[..., Supernet]) -> None:
    network = random_supernet(NetworkSettings(base=16, multipliers=(1, 2), groups=1), 1, 8).widest
    assert isinstance(network, UNet)
    block = network.down[0]
    dead = torch.tensor([0, 1, 5, 9])
    with torch.no_grad():
        block.conv2.weight[:, dead] = 0  # type: ignore[index, union-attr]
        network.time[2].weight[:, dead] = 0  # type: ignore[index]
    sort_channels(network)

    def columns(weights: Tensor) -> Tensor:
        return weights.detach().abs().transpose(0, 1).flatten(1).sum(1)

    assert columns(block.conv2.weight)[-4:].tolist() == [0.0] * 4  # type: ignore[arg-type, union-attr]
    assert columns(network.time[2].weight)[-4:].tolist() == [0.0] * 4  # type: ignore[arg-type]
    assert (columns(block.conv2.weight)[:-4] > 0).all()  # type: ignore[arg-type, union-attr]
