"""A plan as a diffusers pipeline: the images of stepfront's own sampler, from a folder that diffusers reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings, NetworkSettings
from stepfront.trainers.diffusion.conditioning import Condition
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import save_supernet

pytest.importorskip("diffusers")

from stepfront.trainers.interop.pipeline import PlanPipeline, SlimmableUNet

PLAN = Plan((950.0, 700.0, 450.0, 200.5, 0.0), (0.5, 1.0, 0.0, 0.25, 1.0), "ddpm")


@pytest.fixture
def supernet(network: NetworkSettings, random_supernet: Callable[..., Supernet]) -> Supernet:
    return random_supernet(network, 3)


@pytest.fixture
def card(supernet: Supernet, tmp_path: Path) -> SupernetCard:
    return save_supernet(supernet, tmp_path / "supernet", DiffusionSettings(schedule="cosine"), "digits", "f" * 64)


def quiet(pipeline: PlanPipeline) -> PlanPipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("clip", [False, True])
def test_the_pipeline_draws_what_the_sampler_draws_also_from_its_folder(
    clip: bool, supernet: Supernet, card: SupernetCard, tmp_path: Path
) -> None:
    denoisers = {width: supernet.subnet(width) for width in supernet.widths}
    sampler = Sampler(denoisers, noise_schedule(card.diffusion), Noise(7, (3, 8, 8)), torch.device("cpu"), clip=clip)
    expected = next(sampler.sample(PLAN, 4, 4))
    pipeline = quiet(PlanPipeline.of_plan(supernet, card, PLAN, clip))
    assert torch.equal(pipeline(4, seed=7, output_type="pt").images, expected)
    pipeline.save_pretrained(tmp_path / "pipeline")
    loaded = quiet(PlanPipeline.from_pretrained(tmp_path / "pipeline"))
    assert loaded.scheduler.plan == PLAN
    assert torch.equal(loaded(4, seed=7, output_type="pt").images, expected)
    assert not torch.equal(loaded(4, seed=8, output_type="pt").images, expected)


@pytest.mark.parametrize("label", [None, 2])
def test_a_conditional_pipeline_draws_what_the_sampler_draws(
    label: int | None, network: NetworkSettings, random_supernet: Callable[..., Supernet], tmp_path: Path
) -> None:
    supernet, counts = random_supernet(network.model_copy(update={"classes": 3}), 3), (1, 0, 4)
    card = save_supernet(supernet, tmp_path / "supernet", DiffusionSettings(), "digits", "f" * 64, label_counts=counts)
    denoisers = {width: supernet.subnet(width) for width in supernet.widths}
    condition, noise = Condition(7, counts, 2.5, label), Noise(7, (3, 8, 8))
    sampler = Sampler(denoisers, noise_schedule(card.diffusion), noise, torch.device("cpu"), condition=condition)
    expected = next(sampler.sample(PLAN, 4, 4))
    PlanPipeline.of_plan(supernet, card, PLAN, guidance=2.5).save_pretrained(tmp_path / "pipeline")
    loaded = quiet(PlanPipeline.from_pretrained(tmp_path / "pipeline"))
    assert torch.equal(loaded(4, seed=7, output_type="pt", label=label).images, expected)
    with pytest.raises(InputError, match="no class 3; possible: 0 to 2"):
        loaded(4, label=3)


def test_the_width_of_each_step_is_the_plans(
    supernet: Supernet, card: SupernetCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[float, float]] = []
    subnet = supernet.subnet

    def spied(self: Supernet, width: float) -> Callable[[Tensor, Tensor], Tensor]:
        def predict(x: Tensor, t: Tensor) -> Tensor:
            called.append((float(t[0]), width))
            return subnet(width)(x, t)

        return predict

    monkeypatch.setattr(Supernet, "subnet", spied)
    quiet(PlanPipeline.of_plan(supernet, card, PLAN))(2)
    assert called == [(950.0, 0.5), (700.0, 1.0), (200.5, 0.25), (0.0, 1.0)]


def test_images_come_as_pictures_arrays_or_tensors(supernet: Supernet, card: SupernetCard) -> None:
    pipeline = quiet(PlanPipeline.of_plan(supernet, card, PLAN))
    pictures, arrays = pipeline(2).images, pipeline(2, output_type="np").images
    assert [picture.size for picture in pictures] == [(8, 8)] * 2
    assert arrays.shape == (2, 8, 8, 3)
    assert np.array_equal(np.asarray(pictures[0]), np.round(arrays[0] * 255).astype(np.uint8))
    with pytest.raises(InputError, match="output_type 'latent'; possible: pil, np, pt"):
        pipeline(2, output_type="latent")


def test_grey_images_are_grey_pictures(network: NetworkSettings, random_supernet: Callable[..., Supernet]) -> None:
    supernet = random_supernet(network)
    card = SupernetCard(
        format=1, network=network, diffusion=DiffusionSettings(), image_channels=1, resolution=8, data_name="",
        data_fingerprint="", digest="",
    )  # fmt: skip
    assert quiet(PlanPipeline.of_plan(supernet, card, PLAN))(1).images[0].mode == "L"


def test_the_model_alone_takes_the_width_as_an_argument(supernet: Supernet, card: SupernetCard) -> None:
    unet = PlanPipeline.of_plan(supernet, card, PLAN).unet
    assert isinstance(unet, SlimmableUNet)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        for width in supernet.widths:
            assert torch.equal(unet(x, 37, width).sample, supernet(x, torch.full((2,), 37.0), width))


def test_a_plan_of_widths_that_are_not_there_is_refused(supernet: Supernet, card: SupernetCard) -> None:
    with pytest.raises(InputError, match=r"the plan runs at width 0\.6; possible: 0\.25"):
        PlanPipeline.of_plan(supernet, card, Plan((1.0, 0.0), (0.6, 1.0)))
