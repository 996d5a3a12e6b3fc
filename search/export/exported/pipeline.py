"""Sample images by a plan of stepfront: at each step, the network of that step's width runs.

    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained("knee", trust_remote_code=True)
    images = pipeline(batch_size=16, generator=torch.manual_seed(0)).images

`trust_remote_code` lets diffusers run this file and those beside the weights.  Needs diffusers and torch alone.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

PARTS = ("unet", "scheduler", "vae")
BESIDE = {"plan_unet": ("sample",), "plan_prompt_unet": ("text_unet_features",), "taesd_decoder": ("taesd_layers",)}
"""Programs that stand beside the one that defines a part's class."""

Generators = torch.Generator | list[torch.Generator] | None


class PlanPipeline(DiffusionPipeline):
    """A PlanUNet (or PlanPromptUNet) and the PlanScheduler that says which of its widths runs at which step.

    Where the networks make latents, `vae` is the autoencoder that decodes them.
    """

    model_cpu_offload_seq = "unet->vae"
    _optional_components = ["vae"]  # noqa: RUF012 - as diffusers declares it

    def __init__(self, unet: Any, scheduler: Any, vae: Any = None) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, vae=vae)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Save the pipeline with its programs, so that it loads again; options are those of diffusers."""
        super().save_pretrained(save_directory, **options)
        programs, out = Path(inspect.getfile(type(self))).parent, Path(save_directory)  # diffusers keeps them together
        own = {part: name for part in PARTS if (name := self._program_of(part))}
        for folder, program in {".": "pipeline", **own}.items():
            for name in (program, *BESIDE.get(program, ())):
                shutil.copyfile(programs / f"{name}.py", out / folder / f"{name}.py")
        index = json.loads((out / self.config_name).read_text(encoding="utf-8"))
        index |= {"_class_name": ["pipeline", type(self).__name__]}
        index |= {part: [name, index[part][1]] for part, name in own.items()}
        (out / self.config_name).write_text(json.dumps(index, indent=2), encoding="utf-8")

    def _program_of(self, part: str) -> str:
        """Return the program that defines the class of a part; empty for a class of diffusers, and for no part."""
        component = getattr(self, part)
        module = "diffusers." if component is None else type(component).__module__
        return "" if module.startswith("diffusers.") else module.rpartition(".")[2]

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        num_inference_steps: int | None = None,
        class_labels: int | Sequence[int] | None = None,
        guidance_scale: float | None = None,
        generator: Generators = None,
        seed: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Sample images.

        batch_size: number of images (default: one, or as many as there are labels or generators).
        num_inference_steps: the plan's own number of steps; any other is refused.
        class_labels: the class of all images or of each (default: drawn as often as in the training data).  Where the
            network reads text, it is the number of one of the prompts, `unet.config.texts`.
        guidance_scale: scale of guidance by the class at the plan's guided steps, but those that have a scale of their
            own (default: that of the search).
        generator: source of the noise, one or one per image; `seed` instead gives the images of `sample.py --seed` and
            `stepfront sample --seed`.
        output_type: pil, np (float32 [N, H, W, C] in [0, 1]), pt (float32 [N, C, H, W] in [0, 1]) or, where there is an
            autoencoder, latent (float32, as the networks make them).

        The state between steps is float32, also where the network runs in half precision.
        Raises ValueError for input that does not fit the plan, and for latents that are decoded to NaN.
        """
        self._check_output(output_type)
        if seed is not None and generator is not None:
            raise ValueError("seed and generator both say where the noise comes from; give one of them")
        if seed is not None and (not isinstance(seed, int) or not 0 <= seed < 2**64):
            raise ValueError(f"seed {seed!r}; possible: integers from 0 to 2**64 - 1")
        count = _count(batch_size, class_labels, generator)
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        labels, scale = self._labels(count, class_labels, generator, seed), self._scale(guidance_scale)
        x = self._noise(count, generator, seed, 0)
        steps = list(zip(self.scheduler.config.steps, self.scheduler.timesteps, strict=True))
        deep: dict[str, Tensor] = {}
        for step, time in self.progress_bar(steps):
            now = step.get("guidance", scale) if step.get("guided", True) else 1.0
            predicted = self._predict(self.scheduler.scale_model_input(x, time), time, step, labels, now, deep)
            noise = self._noise(count, generator, seed, step["number"] + 1) if self.scheduler.draws_noise() else None
            x = self.scheduler.step(predicted, time, x, noise=noise).prev_sample
        images = x if output_type == "latent" else _finished(self._decoded(x), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _predict(
        self,
        x: Tensor,
        time: Tensor,
        step: dict[str, Any],
        labels: Tensor | None,
        scale: float,
        deep: dict[str, Tensor],
    ) -> Tensor:
        """Return the predicted noise [N, C, H, W]; `deep` has the features of the last full step by kind of call."""
        if labels is None:
            return self._call(x, time, step, None, deep, "label")
        # Where guidance_scale is 1 or 0, steps of other scales may still reuse the features of both calls.
        both = self._has_own_scales() and step.get("hands_out") and step.get("guided", True)
        if scale == 1.0 and not both:
            return self._call(x, time, step, labels, deep, "label")
        null = torch.full_like(labels, len(self.scheduler.config.label_counts))
        unconditional = self._call(x, time, step, null, deep, "null")
        if scale == 0.0 and not step.get("hands_out"):  # an unguided step may reuse those of the call with the label
            return unconditional
        return unconditional + scale * (self._call(x, time, step, labels, deep, "label") - unconditional)

    def _has_own_scales(self) -> bool:
        """Return whether some steps of the plan have scales of guidance of their own."""
        return any("guidance" in step for step in self.scheduler.config.steps)

    def _call(
        self, x: Tensor, time: Tensor, step: dict[str, Any], labels: Tensor | None, deep: dict[str, Tensor], kind: str
    ) -> Tensor:
        keeps = step.get("hands_out", False)
        features = deep[kind] if step.get("reuse") else None
        found = self.unet(x, time, step["width"], labels, deep=features, keeps=keeps)
        if keeps:
            deep[kind] = found.deep
        return found.sample.float()

    def _check_output(self, output_type: str) -> None:
        possible = ("pil", "np", "pt") if self.unet.config.latents is None else ("pil", "np", "pt", "latent")
        if output_type not in possible:
            raise ValueError(f"output_type {output_type!r}; possible: {', '.join(possible)}")

    def _decoded(self, x: Tensor) -> Tensor:
        """Return the images [N, C, H, W] of latents, a few at a time; pixels stay as they are."""
        latents = self.unet.config.latents
        if latents is None:
            return x
        shift, scale = (x.new_tensor(latents[name])[:, None, None] for name in ("shift", "scale"))
        kept = self.vae.dtype
        if kept == torch.float16 and self.vae.config.get("force_upcast"):  # its own config says that it overflows
            self.vae.to(dtype=torch.float32)
        parts = (x / scale + shift).to(self.vae.dtype).split(latents["batch"])
        images = torch.cat([self.vae.decode(part).sample.float() for part in parts])
        used = str(self.vae.dtype).removeprefix("torch.")
        if used != str(kept).removeprefix("torch."):
            self.vae.to(dtype=kept)
        if torch.isfinite(x).all() and not torch.isfinite(images).all():
            advice = (
                "its weights are damaged, or were saved in a precision that overflows"
                if used == "float32"
                else "decode in float32: pipeline.vae.to(torch.float32)"
            )
            raise ValueError(f"the autoencoder decodes finite latents to NaN in {used}; {advice}")
        return images

    def _scale(self, given: float | None) -> float:
        if given is not None and not self.scheduler.config.label_counts:
            raise ValueError(f"guidance_scale is {given}, and these networks have no classes; leave it out")
        return self.scheduler.config.guidance_scale if given is None else given

    def _labels(
        self, count: int, given: int | Sequence[int] | None, generator: Generators, seed: int | None
    ) -> Tensor | None:
        """Return the labels [N]: those given, or drawn from the source of the noise; None without classes."""
        counts = self.scheduler.config.label_counts
        if not counts:
            if given is not None:
                raise ValueError("these networks have no classes; leave class_labels out")
            return None
        if given is None:
            labels = _drawn_labels(counts, count, generator, seed)
        else:
            labels = [given] * count if isinstance(given, int) else list(given)
        for label in labels:
            if not 0 <= label < len(counts):
                raise ValueError(f"no class {label}; possible: 0 to {len(counts) - 1}")
        return torch.tensor(labels, device=self._execution_device)

    def _noise(self, count: int, generator: Generators, seed: int | None, block: int) -> Tensor:
        """Return noise [N, C, H, W] from the generators, or as a function of seed, image and step (Philox)."""
        size = self.unet.config.sample_size
        shape = (self.unet.config.in_channels, size, size)
        if seed is None:
            return randn_tensor((count, *shape), generator, self._execution_device, torch.float32)
        drawn = np.empty((count, *shape), dtype=np.float32)
        for number in range(count):
            philox = np.random.Generator(np.random.Philox(key=[seed, number], counter=[0, 0, 0, block]))
            drawn[number] = philox.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(drawn).to(self._execution_device)


def _count(batch_size: int | None, labels: int | Sequence[int] | None, generator: Generators) -> int:
    """Return the number of images; raises ValueError where the arguments disagree on it."""
    given = {"batch_size": batch_size}
    if labels is not None and not isinstance(labels, int):
        given["class_labels"] = len(labels)
    if isinstance(generator, list):
        given["generators"] = len(generator)
    numbers = {name: number for name, number in given.items() if number is not None}
    if len({*numbers.values()}) > 1 or min(numbers.values(), default=1) < 1:
        said = ", ".join(f"{number} {name}" for name, number in numbers.items())
        raise ValueError(f"{said}; possible: one number of images from 1 on")
    return next(iter(numbers.values()), 1)


def _drawn_labels(counts: list[int], images: int, generator: Generators, seed: int | None) -> list[int]:
    if seed is not None:  # four numbers per count of the generator: sample.py draws these
        philox = np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, 0, 1, 0]))
        shares = np.cumsum(counts) / sum(counts)
        return [int(label) for label in np.searchsorted(shares, philox.random(images), side="right")]
    weights = torch.tensor(counts, dtype=torch.float64)
    each = generator if isinstance(generator, list) else [generator]
    drawn = [
        torch.multinomial(
            weights if one is None else weights.to(one.device), images // len(each), replacement=True, generator=one
        ).cpu()
        for one in each
    ]
    return [int(label) for label in torch.cat(drawn)]


def _finished(x: Tensor, output_type: str) -> Any:
    if output_type == "pil":
        pixels = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image) for image in pixels]
    images = (x / 2 + 0.5).clamp(0, 1)
    return images if output_type == "pt" else images.permute(0, 2, 3, 1).cpu().numpy()
