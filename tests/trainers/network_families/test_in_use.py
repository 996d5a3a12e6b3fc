"""Families beside the U-Net where networks are used: training, files, scores of plans, and engines."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stepfront.trainers.config import DiffusionSettings, FeatureSettings, SamplerSettings, TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.evaluator import Evaluator, EvaluatorParts
from stepfront.trainers.inference import winograd
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.inference.engine import Engine
from stepfront.trainers.metrics.features import prepare_features
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.training.trainer import train_supernet
from stepfront.trainers.training_settings import TrainingSettings

FAMILIES = ("spectral", "ode")
CPU = torch.device("cpu")


def network(family: str) -> NetworkSettings:
    return NetworkSettings(
        family=family, base=8, multipliers=(1, 2), attention=(4,), groups=4, group_channels=2, widths=(0.25, 0.5, 1.0)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trained_supernet_is_read_back_and_scores_a_plan_of_two_widths(
    digits: ImageData, tmp_path: Path, family: str
) -> None:
    training = TrainingSettings(
        steps=16, batch=16, lr=4e-3, warmup=2, ema=0.5, samples_every=0, held_out_images=32, device="cpu"
    )
    card = train_supernet(TrainerSettings(network=network(family), training=training), digits, tmp_path)
    losses = card.made_with["held_out_losses"]
    assert all(loss < 0.95 for loss in losses.values())  # the first prediction is zero, whose loss is 1
    supernet, saved = load_supernet(tmp_path)
    assert saved == card
    costs = {width: count_width(card.network, 1, 8, width) for width in supernet.widths}
    packed, reference = prepare_features(digits, FeatureSettings(name="random", examine="skip"), tmp_path, CPU)
    weights = {name: value.detach().numpy() for name, value in supernet.widest.named_parameters()}
    sampler = SamplerSettings(solver="ddim", grid="trailing", steps=4)
    parts = EvaluatorParts(card, weights, packed, reference, sampler, costs, batch=16)
    plan = Plan(
        tuple(map(float, time_grid(noise_schedule(DiffusionSettings()), "trailing", 4))), (0.25, 0.25, 1.0, 1.0)
    )
    evaluation = Evaluator(parts)(plan, 32, 1)
    assert evaluation.error == ""
    assert math.isfinite(evaluation.fid)
    assert evaluation.gflops == pytest.approx(4e-9 * (costs[0.25].macs + costs[1.0].macs))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("engine", ["channels_last", "winograd"])
@torch.inference_mode()
def test_engines_predict_what_the_plain_network_does(
    random_supernet: Callable[..., Supernet], monkeypatch: pytest.MonkeyPatch, family: str, engine: str
) -> None:
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    supernet = random_supernet(network(family))
    x, t = torch.randn(5, 1, 8, 8), torch.full((5,), 300.0)
    for width in supernet.widths:
        run = Engine(name=engine).run(supernet.subnet(width), CPU, 5)  # type: ignore[arg-type]
        torch.testing.assert_close(run(x, t), supernet.subnet(width)(x, t), rtol=1e-3, atol=1e-4)
