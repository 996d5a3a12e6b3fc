"""A plan as a diffusers scheduler: times, widths, and the coefficients of its solver, learnt ones included.

Step i reads the states x_j and the predicted clean images x0_j of steps j <= i, as pairs [j, coefficient], and noise z:

    x_next = sum states_j x_j + sum clean_j x0_j + noise z,      x0 = (x - sigma eps) / alpha

Where a network predicts something other than the noise eps, `conversion` holds four numbers per step:

    eps = of_x x + of_output network(scale x, told)
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


class PlanScheduler(SchedulerMixin, ConfigMixin):
    """The steps of a plan, in the order in which they are taken.

    Where there are classes, it also holds the scale of guidance that the plan was searched with, and how often each
    class occurs in the training data.  A step with `guidance` has a scale of its own.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        plan: str,
        steps: list[dict[str, Any]],
        clip: bool = False,
        guidance_scale: float = 1.0,
        label_counts: list[int] | None = None,
    ) -> None:
        self.num_inference_steps = len(steps)
        self.set_timesteps()

    @property
    def widths(self) -> list[float]:
        """The width of the network per step."""
        return [float(step["width"]) for step in self.config["steps"]]

    def set_timesteps(self, num_inference_steps: int | None = None, device: str | torch.device | None = None) -> None:
        """Begin at the first step; raises ValueError for another number of steps than the plan has."""
        own = len(self.config["steps"])
        if num_inference_steps not in (None, own):
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}, and this plan has {own} steps; leave it out, or export "
                "a point of the front with that many"
            )
        told = [step["conversion"]["told"] if "conversion" in step else step["time"] for step in self.config["steps"]]
        self.timesteps = torch.tensor(told, dtype=torch.float32, device=device)  # what the network is told
        self._position = 0
        self._states: dict[int, Tensor] = {}
        self._clean: dict[int, Tensor] = {}

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        """Return what the network reads of the sample at the step that comes next."""
        conversion = self.config["steps"][self._position].get("conversion")
        return sample if conversion is None else conversion["scale"] * sample

    def draws_noise(self) -> bool:
        """Return whether the step that comes next adds noise."""
        return bool(self.config["steps"][self._position]["noise"])

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """Return the state after the next step; steps are taken in their order, after `set_timesteps`.

        `noise` is used by a step that adds noise; None draws it from `generator`.
        """
        if self._position >= len(self.config["steps"]):
            raise ValueError("all steps are taken; call set_timesteps to begin again")
        step, i = self.config["steps"][self._position], self._position
        if (conversion := step.get("conversion")) is not None:
            model_output = conversion["of_x"] * sample + conversion["of_output"] * model_output
        x0 = (sample - step["sigma"] * model_output) / step["alpha"]
        self._states[i], self._clean[i] = sample, x0.clamp(-1, 1) if self.config["clip"] else x0
        x = sum(
            [c * self._states[j] for j, c in step["states"]] + [c * self._clean[j] for j, c in step["clean"]],
            start=torch.zeros((), device=sample.device, dtype=sample.dtype),
        )
        if step["noise"]:
            if noise is None:
                noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
            x = x + step["noise"] * noise
        self._states = {j: self._states[j] for j in step["keep"]["states"]}
        self._clean = {j: self._clean[j] for j in step["keep"]["clean"]}
        self._position += 1
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)
