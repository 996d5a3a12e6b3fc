"""ODE blocks: the solver's order, its cost, and what a block computes."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.network_families.ode import OdeBlock, semi_implicit_euler
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import save_supernet
from stepfront.trainers.training.starting_weights import start_from

SETTINGS = NetworkSettings(family="ode", base=8, multipliers=(1, 2), groups=4, group_channels=2)
ONE, NONE = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)


def damped(x: Tensor, velocity: Tensor) -> Tensor:
    return -x - 0.3 * velocity


def pendulum(x: Tensor, velocity: Tensor) -> Tensor:
    return -x.sin()


# --- the solver -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "golden"), [(1, 0.1585290152), (2, 0.4017409106), (4, 0.5040033552), (8, 0.5525542474)]
)
def test_the_pendulum_has_the_golden_values(steps: int, golden: float) -> None:
    assert semi_implicit_euler(pendulum, ONE, NONE, steps)[0].item() == pytest.approx(golden, abs=1e-10)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_a_linear_oscillator_is_the_power_of_its_step(steps: int) -> None:
    h = 1 / steps
    velocity = torch.tensor([-h, 1 - 0.3 * h], dtype=torch.float64)  # of (x, v)
    step = torch.stack([torch.tensor([1.0, 0.0], dtype=torch.float64) + h * velocity, velocity])
    x, v = torch.linalg.matrix_power(step, steps)[:, 0]
    found = semi_implicit_euler(damped, ONE, NONE, steps)
    assert [each.item() for each in found] == pytest.approx([x.item(), v.item()], abs=1e-12)


def test_the_error_falls_as_the_first_power_of_the_step() -> None:
    exact = 0.582283910786  # of the damped oscillator at 1
    errors = [abs(semi_implicit_euler(damped, ONE, NONE, steps)[0].item() - exact) for steps in (64, 128, 256)]
    orders = [math.log2(large / small) for large, small in pairwise(errors)]
    assert orders == pytest.approx([1, 1], abs=0.02)


def test_an_oscillation_keeps_its_energy_over_many_periods() -> None:
    x, velocity = ONE, NONE
    for _ in range(100):
        x, velocity = semi_implicit_euler(lambda at, _: -at, x, velocity, 2)
    assert 0.5 < (x.square() + velocity.square()).item() < 2  # Euler's method would reach 1.25 ** 200


# --- the block --------------------------------------------------------------------------------------------------------


def random_block(steps: int, attend: bool = False) -> OdeBlock:
    torch.manual_seed(0)
    block = OdeBlock((6, 2), 4, (5,), attend, SETTINGS.model_copy(update={"inner_steps": steps})).double()
    for weights in block.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    return block


def test_a_block_begins_as_its_first_convolution() -> None:
    block, x = OdeBlock((6, 2), 4, (5,), False, SETTINGS), torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x, torch.randn(2, 5)), block.enter(x))


def test_one_inner_step_is_a_residual_block_with_a_velocity() -> None:
    block, x, time = random_block(1), torch.randn(2, 8, 4, 4).double(), torch.randn(2, 5).double()
    begin = block.enter(x)
    velocity = block.start(begin)
    scale, shift = block.time(time)[:, :4, None, None], block.time(time)[:, 4:, None, None]
    h = block.conv1(torch.nn.functional.silu(block.norm1(torch.cat([begin, velocity], dim=1))))
    force = block.conv2(torch.nn.functional.silu((1 + scale) * block.norm2(h) + shift))
    torch.testing.assert_close(block(x, time), begin + velocity + force)


def test_more_inner_steps_approach_the_same_output_at_first_order() -> None:
    x, time = torch.randn(2, 8, 4, 4).double(), torch.randn(2, 5).double()
    with torch.no_grad():
        exact = random_block(1024)(x, time)
        errors = [(random_block(steps)(x, time) - exact).norm().item() for steps in (16, 32, 64)]
    assert [a / b for a, b in pairwise(errors)] == pytest.approx([2, 2], abs=0.2)


# --- the network ------------------------------------------------------------------------------------------------------


def test_macs_grow_by_those_of_the_blocks_with_each_inner_step_and_parameters_do_not() -> None:
    for width in (0.25, 1.0):
        costs = [count_width(SETTINGS.model_copy(update={"inner_steps": steps}), 1, 8, width) for steps in (1, 2, 3, 8)]
        assert len({cost.parameters for cost in costs}) == 1
        c = round(8 * width)
        # A step of a block is 9 (2 C) C + 9 C C MACs per pixel: 1 + 2 blocks of C at 8x8, 1 + 2 + 2 of 2 C at 4x4.
        step = 27 * c * c * (3 * 8**2 + 5 * 2**2 * 4**2)
        assert [cost.macs - costs[0].macs for cost in costs] == [0, step, 2 * step, 7 * step]


def test_a_narrow_block_reads_the_first_channels_of_state_and_velocity() -> None:
    supernet = Supernet(SETTINGS, 1, 8)
    wide, sliced = dict(supernet.widest.named_parameters()), supernet.sliced(0.5)
    both = torch.tensor([*range(4), *range(8, 12)])
    assert torch.equal(sliced["down.0.conv1.weight"], wide["down.0.conv1.weight"][:4, both])
    assert torch.equal(sliced["down.0.norm1.weight"], wide["down.0.norm1.weight"][both])
    assert torch.equal(sliced["down.0.time.weight"], wide["down.0.time.weight"][both, :16])


def test_inner_steps_are_refused_where_no_block_has_them() -> None:
    with pytest.raises(ValueError, match=r"does not have the settings network\.inner_steps; they are for family ode"):
        NetworkSettings(family="unet", inner_steps=3)
    with pytest.raises(InputError, match="28 pixels can't be halved 3 times"):
        Supernet(SETTINGS.model_copy(update={"multipliers": (1, 2, 2, 2)}), 1, 28)


def test_weights_trained_with_other_inner_steps_are_a_start(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = Supernet(SETTINGS.model_copy(update={"inner_steps": 1}), 1, 8)
    save_supernet(trained, tmp_path, DiffusionSettings(), "digits", "")
    supernet = Supernet(SETTINGS.model_copy(update={"inner_steps": 4}), 1, 8)
    start_from(supernet, tmp_path, DiffusionSettings())
    for name, weights in supernet.widest.named_parameters():
        assert torch.equal(weights, trained.widest.get_parameter(name)), name
