"""Run a plan as a diffusers pipeline: one set of weights, and at each step the width of the plan.

This module needs diffusers (`pip install 'stepfront[diffusers]'`).

    pipeline = PlanPipeline.from_pretrained("knee")
    images = pipeline(batch_size=16, seed=0).images
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, DiffusionPipeline, ImagePipelineOutput, ModelMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from PIL import Image
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings, NetworkSettings
from stepfront.trainers.data import to_pixels
from stepfront.trainers.diffusion.conditioning import make_condition
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import SKIP, Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.validation import settings_json, validate


class SlimmableUNet(ModelMixin, ConfigMixin):
    """A supernet as a diffusers model, with the width as an argument of its forward pass."""

    @register_to_config
    def __init__(self, network: dict[str, Any], image_channels: int, resolution: int) -> None:
        super().__init__()
        self.supernet = Supernet(validate(NetworkSettings, network), image_channels, resolution)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        width: float = 1.0,
        return_dict: bool = True,
        class_labels: Tensor | None = None,
    ) -> UNet2DOutput | tuple[Tensor]:
        """Return the predicted noise [B, C, H, W] of sample [B, C, H, W].

        `timestep` is a number or [B].  `class_labels` are [B] where there are classes; None is the null class.
        """
        times = torch.as_tensor(timestep, device=sample.device, dtype=torch.float32).expand(len(sample))
        predicted = self.supernet(sample, times, width, class_labels)
        return UNet2DOutput(sample=predicted) if return_dict else (predicted,)


class PlanScheduler(SchedulerMixin, ConfigMixin):
    """A plan (times, widths and solver) over a noise schedule, as the scheduler in a pipeline's folder.

    `learnt` is the plan's learnt sampler, if it has one, as `LearntSampler.to_json` returns it.  Where there are
    classes, the scheduler also holds the guidance and the frequency of each class.
    """

    @register_to_config
    def __init__(
        self,
        times: list[float],
        widths: list[float],
        solver: str,
        diffusion: dict[str, Any],
        clip: bool = False,
        guidance: float = 1.0,
        label_counts: list[int] | None = None,
        learnt: dict[str, Any] | None = None,
    ) -> None:
        sampler = None if learnt is None else LearntSampler.from_json(learnt)
        self.plan = Plan(tuple(map(float, times)), tuple(map(float, widths)), solver, sampler)
        self.schedule = noise_schedule(validate(DiffusionSettings, diffusion))
        self.clip, self.guidance, self.label_counts = clip, guidance, label_counts or []


class PlanPipeline(DiffusionPipeline):
    """Sample images by a plan: at each step, the network runs at the step's width."""

    def __init__(self, unet: SlimmableUNet, scheduler: PlanScheduler) -> None:
        super().__init__()
        scheduler.plan.check_widths(unet.supernet.widths)
        self.register_modules(unet=unet, scheduler=scheduler)

    @staticmethod
    def of_plan(
        supernet: Supernet, card: SupernetCard, plan: Plan, clip: bool = False, guidance: float = 1.0
    ) -> PlanPipeline:
        """Return the pipeline of a plan over a supernet."""
        unet = SlimmableUNet(settings_json(card.network), card.image_channels, card.resolution)
        unet.supernet.load_state_dict(supernet.state_dict())
        diffusion, counts = settings_json(card.diffusion), list(card.label_counts)
        times, widths = list(plan.times), list(plan.widths)
        learnt = None if plan.learnt is None else plan.learnt.to_json()
        scheduler = PlanScheduler(times, widths, plan.solver, diffusion, clip, guidance, counts, learnt)
        return PlanPipeline(unet.eval(), scheduler)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        seed: int = 0,
        output_type: str = "pil",
        return_dict: bool = True,
        label: int | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw images 0 ... batch_size - 1 of the noise seed, as `stepfront sample --seed --label` does.

        label: the class of all images; None draws classes as often as they occur in the training data.
        output_type: `pil`, `np` (float [B, H, W, C] in [0, 1]) or `pt` (float [B, C, H, W] in about [-1, 1]).
        """
        if output_type not in ("pil", "np", "pt"):
            raise InputError(f"output_type {output_type!r}; possible: pil, np, pt")
        supernet, plan, scheduler = self.unet.supernet, self.scheduler.plan, self.scheduler
        classes = supernet.settings.classes
        condition = make_condition(classes, scheduler.label_counts, scheduler.guidance, seed, label)
        # A plain subnet per width: narrow widths are fast only with contiguous weights.
        subnets = {width: supernet.subnet(width) for width in {*plan.widths} - {SKIP}}
        noise = Noise(seed, (supernet.image_channels, supernet.resolution, supernet.resolution))
        clip = scheduler.clip
        sampler = Sampler(subnets, scheduler.schedule, noise, self.device, clip=clip, condition=condition)
        run = sampler.prepare(plan)
        indices = range(batch_size)
        state = sampler.start(indices)
        for position in self.progress_bar(range(len(run))):
            state = sampler.step(state, run, position, indices)
        images = state.x if output_type == "pt" else _finished(state.x, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)


def _finished(x: Tensor, output_type: str) -> np.ndarray | list[Image.Image]:
    pixels = np.moveaxis(to_pixels(x), 1, 3)
    if output_type == "np":
        return pixels.astype(np.float32) / 255
    return [Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image) for image in pixels]
