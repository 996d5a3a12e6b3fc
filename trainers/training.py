"""Sandwich training of a supernet: images in, weights and a loss for every width out; a killed run goes on exactly.

In every step the widest, the narrowest and one random width see the data (Yu & Huang 2019, section 3).  All that is
random in a step is a function of (seed, step), so a checkpoint needs no random state and a resumed run ends with the
same weights as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainers.conditioning import check_classes, label_counts
from trainers.config import TrainerSettings
from trainers.cost import pick_device
from trainers.data import ImageData, to_float
from trainers.errors import InputError
from trainers.files import write_atomically
from trainers.noise import NoiseSchedule, noise_schedule
from trainers.supernet import Supernet, SupernetCard, save_supernet, settings_json, starting_weights

CHECKPOINT_FILE = "checkpoint.safetensors"


@dataclass
class TrainingReport:
    """Where a training stands: losses are held-out noise-prediction errors a width, of the averaged weights."""

    step: int
    total: int
    losses: dict[float, float] = field(default_factory=dict)


Report = Callable[[TrainingReport], None]


def train_supernet(
    settings: TrainerSettings, data: ImageData, directory: Path, report: Report = lambda report: None
) -> SupernetCard:
    """Trains to the end, from the checkpoint in `directory` where there is one, and saves the averaged weights there.

    Raises InputError when the checkpoint is damaged or was made with other settings or data, when network.classes does
    not fit the labels, or when the training diverges.
    """
    run = _Run(settings, data, Path(directory))
    run.load_checkpoint()
    training = settings.training
    losses: dict[float, float] = {}
    while run.step < training.steps:
        run.take_step()
        if run.step % training.checkpoint_every == 0 or run.step == training.steps:
            losses = run.held_out_losses()
            if not all(map(math.isfinite, losses.values())):
                raise InputError(f"the training diverged before step {run.step}; give a smaller training.lr")
            run.save_checkpoint()
        report(TrainingReport(run.step, training.steps, losses))
    losses = losses or run.held_out_losses()
    made_with = {
        "settings": settings_json(settings),
        "held_out_losses": {str(width): loss for width, loss in losses.items()},
        "started_from": run.started_from,
    }
    counts = label_counts(data, settings.network.classes)
    return save_supernet(
        run.averaged, run.directory, settings.diffusion, data.name, data.fingerprint, made_with, counts
    )


class _Run:
    """The state of one training on one device."""

    def __init__(self, settings: TrainerSettings, data: ImageData, directory: Path) -> None:
        self.settings, self.training, self.data, self.directory = settings, settings.training, data, directory
        self.device = pick_device(self.training.device)
        check_classes(data, settings.network.classes)
        with torch.random.fork_rng():
            torch.manual_seed(self.training.seed)
            self.supernet = Supernet(settings.network, data.channels, data.resolution)
        self.started_from = self._start_from(Path(self.training.start)) if self.training.start else None
        self.averaged = Supernet(settings.network, data.channels, data.resolution)
        self.averaged.load_state_dict(self.supernet.state_dict())
        self.supernet.to(self.device).train()
        self.averaged.to(self.device).requires_grad_(False).eval()
        self.parameters = dict(self.supernet.widest.named_parameters())
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=self.training.lr)
        self.step = 0
        schedule: NoiseSchedule = noise_schedule(settings.diffusion)
        every = np.arange(schedule.steps, dtype=np.float64)
        self.alpha = torch.from_numpy(schedule.alpha(every)).float().to(self.device)
        self.sigma = torch.from_numpy(schedule.sigma(every)).float().to(self.device)
        on_gpu = self.device.type == "cuda"
        self.bfloat16 = self.training.precision == "bfloat16" or (self.training.precision == "auto" and on_gpu)

    def _start_from(self, directory: Path) -> dict[str, object]:
        """Takes over the weights of another supernet; what of it and how much."""
        own = dict(self.supernet.widest.named_parameters())
        weights, card = starting_weights(directory, self.settings.network, self.settings.diffusion, own)
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)
        taken, total = (sum(value.numel() for value in some.values()) for some in (weights, own))
        return {"digest": card.digest, "data": card.data_name, "weights": taken, "of": total}

    def take_step(self) -> None:
        """One sandwich step: summed gradients of three widths, one update, one step of the average."""
        generator = torch.Generator().manual_seed(_mix(self.training.seed, self.step))
        torch.manual_seed(_mix(self.training.seed, self.step) + 1)  # dropout draws from the global generator
        self.optimizer.zero_grad(set_to_none=True)
        target: Tensor | None = None
        draw = self._noisy_batch(generator)
        for i, width in enumerate(self._sandwich(generator)):
            if i and not self.training.distill:
                draw = self._noisy_batch(generator)  # fresh images, times and noise: less variance for nothing
            x, t, eps, label = draw
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                predicted = self.supernet(x, t, width, label)
            goal = eps if target is None else torch.lerp(eps, target, self.training.distill)
            F.mse_loss(predicted.float(), goal).backward()
            if self.training.distill and target is None:
                target = predicted.detach().float()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.training.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.lr * self._rate(self.step)
        self.optimizer.step()
        self.step += 1
        self._average()

    def _sandwich(self, generator: torch.Generator) -> list[float]:
        widths = self.supernet.widths
        between = widths[1:-1]
        chosen = [between[int(torch.randint(len(between), (), generator=generator))]] if between else []
        return [widths[-1], *([widths[0]] if len(widths) > 1 else []), *chosen]

    def _noisy_batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        rows = torch.randint(len(self.data.images), (self.training.batch,), generator=generator)
        x0 = to_float(self.data.images[rows.numpy()])
        if self.settings.data.flip:
            mirrored = torch.rand(len(x0), generator=generator) < 0.5
            x0 = torch.where(mirrored[:, None, None, None], x0.flip(3), x0)
        t = torch.randint(len(self.alpha), (len(x0),), generator=generator).to(self.device)
        eps = torch.randn(x0.shape, generator=generator).to(self.device)
        return self._noisy(x0.to(self.device), t, eps), t, eps, self._labels(rows, generator)

    def _labels(self, rows: Tensor, generator: torch.Generator) -> Tensor | None:
        """The labels of images, some of them dropped to the null class; None for an unconditional network."""
        classes = self.settings.network.classes
        if classes is None or self.data.labels is None:
            return None
        labels = torch.from_numpy(self.data.labels[rows.numpy()])
        dropped = torch.rand(len(labels), generator=generator) < self.training.drop_labels
        return labels.masked_fill(dropped, classes).to(self.device)

    def _noisy(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return self.alpha[t, None, None, None] * x0 + self.sigma[t, None, None, None] * eps

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self.training.warmup))
        left = max(1, self.training.steps - self.training.warmup)
        done = min(1.0, max(0, step - self.training.warmup) / left)
        return warm * (0.5 + 0.5 * math.cos(math.pi * done) if self.training.decay else 1.0)

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average follows quickly, or the first random weights would stay in it for thousands of steps.
        keep = min(self.training.ema, self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.supernet.parameters()), 1 - keep)

    @torch.inference_mode()
    def held_out_losses(self) -> dict[float, float]:
        """Noise-prediction error of the averaged weights on held-out images, the same images and noise each time."""
        count = min(self.training.held_out_images, len(self.data.held_out_images))
        generator = torch.Generator().manual_seed(_mix(self.training.seed, -1))
        x0 = to_float(self.data.held_out_images[:count]).to(self.device)
        t = torch.linspace(0, len(self.alpha) - 1, count).long().to(self.device)
        eps = torch.randn(x0.shape, generator=generator).to(self.device)
        x, label = self._noisy(x0, t, eps), None
        if self.settings.network.classes is not None and self.data.held_out_labels is not None:
            label = torch.from_numpy(self.data.held_out_labels[:count]).to(self.device)
        return {w: float(F.mse_loss(self.averaged(x, t, w, label).float(), eps)) for w in self.averaged.widths}

    # --- checkpoints: one safetensors file, so that weights, moments and step can never disagree ---------------------

    def save_checkpoint(self) -> None:
        """Writes weights, average, Adam's moments and the step."""
        tensors: dict[str, Tensor] = {}
        averaged = dict(self.averaged.widest.named_parameters())
        for name, weights in self.parameters.items():
            state = self.optimizer.state[weights]
            tensors |= {
                f"weights.{name}": weights.detach(),
                f"averaged.{name}": averaged[name].detach(),
                f"first.{name}": state["exp_avg"],
                f"second.{name}": state["exp_avg_sq"],
            }
        on_cpu = {name: value.cpu().contiguous() for name, value in tensors.items()}
        metadata = {"step": str(self.step), "made_from": self._made_from()}
        write_atomically(self.directory / CHECKPOINT_FILE, lambda path: save_file(on_cpu, path, metadata))

    def load_checkpoint(self) -> None:
        """Goes on from the checkpoint in the directory, where there is one."""
        path = self.directory / CHECKPOINT_FILE
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path} is not a whole checkpoint: {error}; delete it to start over") from None
        if metadata.get("made_from") != self._made_from():
            raise InputError(f"{path} was made with other settings or data; delete it, or train elsewhere")
        self.step = int(metadata["step"])
        averaged = dict(self.averaged.widest.named_parameters())
        with torch.no_grad():
            for name, weights in self.parameters.items():
                weights.copy_(tensors[f"weights.{name}"])
                averaged[name].copy_(tensors[f"averaged.{name}"])
                self.optimizer.state[weights] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": tensors[f"first.{name}"].to(self.device),
                    "exp_avg_sq": tensors[f"second.{name}"].to(self.device),
                }

    def _made_from(self) -> str:
        """A digest of all that decides the weights; how often to write checkpoints is not among it."""
        settings = settings_json(self.settings)
        for key in ("checkpoint_every", "held_out_images", "device"):
            del settings["training"][key]
        for key in ("memory_mb", "cache"):
            del settings["data"][key]
        del settings["features"]
        settings.get("sampler", {}).pop("guidance", None)
        if self.settings.network.classes is None:  # as in checkpoints from before there were classes
            del settings["network"]["classes"], settings["training"]["drop_labels"]
        return hashlib.sha256(json.dumps([settings, self.data.fingerprint], sort_keys=True).encode()).hexdigest()


def _mix(seed: int, step: int) -> int:
    """A 62-bit seed for one step, far from that of every other step and run."""
    return int(np.random.SeedSequence([seed, step + 1]).generate_state(1, np.uint64)[0] >> 2)
