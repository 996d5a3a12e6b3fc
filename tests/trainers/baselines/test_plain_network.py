"""A plain network of one width: the same layers, and as many network FLOPs as the supernet's training."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from stepfront.errors import InputError
from stepfront.trainers.baselines.plain_network import plain_settings, step_macs
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.training.sandwich import choose_widths, uses_per_step
from stepfront.trainers.training_settings import TrainingSettings

NETWORK = NetworkSettings(base=16, multipliers=(1, 2))
WIDTHS = NETWORK.widths


def settings(**training: Any) -> TrainerSettings:
    return TrainerSettings(network=NETWORK, training=TrainingSettings(steps=1000, **training))


@pytest.mark.parametrize("rule", ["sandwich", "single"])
@pytest.mark.parametrize("widths", [(1.0,), (0.5, 1.0), WIDTHS])
def test_the_expected_widths_are_those_that_are_drawn(rule: Any, widths: tuple[float, ...]) -> None:
    training, generator, steps = TrainingSettings(rule=rule), torch.Generator().manual_seed(0), 4000
    drawn = Counter(width for _ in range(steps) for width in choose_widths(training, widths, generator))
    for width, share in uses_per_step(training, widths).items():
        assert drawn[width] / steps == pytest.approx(share, abs=0.03)  # four standard errors at most


@pytest.mark.parametrize("rule", ["sandwich", "single"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_plain_network_is_trained_for_the_flops_of_the_supernet(rule: Any, width: float) -> None:
    given = settings(rule=rule)
    plain = plain_settings(given, width, 1, 8)
    macs = count_width(plain.network, 1, 8, 1.0).macs
    assert step_macs(plain, 1, 8) == macs  # one width, once a step
    assert plain.training.steps * macs == pytest.approx(1000 * step_macs(given, 1, 8), abs=macs)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plain_network_has_the_layers_of_its_width(width: float) -> None:
    plain = plain_settings(settings(), width, 1, 8)
    with torch.device("meta"):
        alone = build_backbone(plain.network, 1, 8, 1.0).state_dict()
        cut = build_backbone(NETWORK, 1, 8, width).state_dict()
    # A supernet gives every width the sinusoid of the widest; a plain network has its own.
    differ = {name for name in cut if alone[name].shape != cut[name].shape}
    assert list(alone) == list(cut)
    assert differ == ({"time.0.weight"} if width < 1 else set())


def test_what_only_a_supernet_has_is_left_out() -> None:
    given = settings(width_weights=(1.0, 2.0, 1.0, 1.0), distill=0.5, distill_spectrum=0.1)
    training = plain_settings(given, 0.5, 1, 8).training
    assert (training.width_weights, training.distill, training.distill_spectrum) == (None, 0.0, 0.0)
    taught = settings(distill=0.5, teacher="runs/other/supernet", rule="single")
    assert plain_settings(taught, 0.5, 1, 8).training.distill == 0.5


def test_what_has_no_plain_network_is_refused_in_a_line() -> None:
    with pytest.raises(InputError, match=r"width 0.3 is not one of network.widths; possible: 0.25, 0.5, 0.75, 1"):
        plain_settings(settings(), 0.3, 1, 8)
    with pytest.raises(InputError, match="starts from random weights"):
        plain_settings(settings(start="runs/other/supernet"), 0.5, 1, 8)
