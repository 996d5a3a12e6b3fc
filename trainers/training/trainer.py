"""Sandwich training of a supernet: images in, weights and a loss for every width out; a killed run goes on exactly.

In every step the widest, the narrowest and one random width see the data (Yu & Huang 2019, section 3).  All that is
random in a step is a function of (seed, step), so a checkpoint needs no random state and a resumed run ends with the
same weights as one that was never interrupted.

Several processes share each batch: every one draws all of it from (seed, step) and takes its part, so they compute what
one alone does, up to the order of float sums.  Dropout alone is drawn a process (and micro-batch).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepfront.errors import InputError
from stepfront.files import write_atomically
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.data.decode import Pixels
from stepfront.trainers.devices import pick_device
from stepfront.trainers.diffusion.conditioning import check_classes, label_counts, make_condition
from stepfront.trainers.diffusion.preview import width_samples
from stepfront.trainers.diffusion.schedule import NoiseSchedule, noise_schedule
from stepfront.trainers.networks.supernet import Supernet, SupernetCard, save_supernet, settings_json, starting_weights
from stepfront.trainers.training.checkpoints import CheckpointStore, training_key
from stepfront.trainers.training.distributed import Group

CHECKPOINT_FILE = "checkpoint.safetensors"

Draw = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Noisy images [B, C, H, W], their times [B], their noise [B, C, H, W], and labels [B] where there are classes."""


@dataclass
class TrainingReport:
    """Where a training stands: losses are held-out noise-prediction errors a width, of the averaged weights.

    `saved` says that a checkpoint of this step has just been written.  `images_per_second` counts, since the checkpoint
    before, each image that a width was trained on, in all processes.  `samples` is `width_samples`, where they are due.
    """

    step: int
    total: int
    losses: dict[float, float] = field(default_factory=dict)
    saved: bool = False
    learning_rate: float = 0.0
    images_per_second: float = 0.0
    samples: Pixels | None = None


Report = Callable[[TrainingReport], None]


def train_supernet(
    settings: TrainerSettings,
    data: ImageData,
    directory: Path,
    report: Report = lambda report: None,
    store: CheckpointStore | None = None,
    group: Group | None = None,
) -> SupernetCard:
    """Trains to the end, from the checkpoint in `directory` where there is one, and saves the averaged weights there.

    `store` keeps the checkpoint as well, and brings it where `directory` has none, or an older one.
    Raises InputError when the checkpoint is damaged or was made with other settings or data, when network.classes does
    not fit the labels, or when the training diverges.
    """
    run = _Run(settings, data, Path(directory), store, group or Group())
    losses = run.to_the_end(report) or run.held_out_losses()
    made_with = {
        "settings": settings_json(settings),
        "held_out_losses": {str(width): loss for width, loss in losses.items()},
        "started_from": run.started_from,
    }
    counts = label_counts(data, settings.network.classes)
    return save_supernet(
        run.averaged, run.directory, settings.diffusion, data.name, data.fingerprint, made_with, counts
    )


def begin_training(
    settings: TrainerSettings, data: ImageData, directory: Path, store: CheckpointStore | None = None
) -> int:
    """Makes sure that there is a checkpoint for processes to begin from, be it of step 0; its step.

    Raises as `train_supernet`, so that mistakes come out before any process is started.
    """
    run = _Run(settings, data, Path(directory), store, Group(device=torch.device("cpu")))
    if run.step == 0 or store is not None:
        run.save_checkpoint()
    return run.step


def train_share(
    settings: TrainerSettings,
    data: ImageData,
    directory: Path,
    report: Report,
    store: CheckpointStore | None,
    group: Group,
) -> None:
    """The part of one process of several, from the checkpoint of `begin_training` to the last one.  The first process
    writes and reports."""
    _Run(settings, data, Path(directory), store, group).to_the_end(report)


class _Run:
    """The state of one training in one process, on one device: as the checkpoint says, or at its beginning."""

    def __init__(
        self, settings: TrainerSettings, data: ImageData, directory: Path, store: CheckpointStore | None, group: Group
    ) -> None:
        self.settings, self.training, self.data, self.directory = settings, settings.training, data, directory
        check_classes(data, settings.network.classes)
        self.store, self.group = store, group
        self.device = group.device if group.device is not None else pick_device(self.training.device)
        path = self.directory / CHECKPOINT_FILE
        if store is not None:
            store.fetch(path)
        with torch.random.fork_rng():
            torch.manual_seed(self.training.seed)
            self.supernet = Supernet(settings.network, data.channels, data.resolution)
        self.started_from: dict[str, object] | None = None
        if self.training.start and not path.exists():
            self.started_from = self._start_from(Path(self.training.start))
        self.averaged = Supernet(settings.network, data.channels, data.resolution)
        self.averaged.load_state_dict(self.supernet.state_dict())
        self.supernet.to(self.device).train()
        self.averaged.to(self.device).requires_grad_(False).eval()
        self.parameters = dict(self.supernet.widest.named_parameters())
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=self.training.lr)
        self.step = 0
        self.schedule: NoiseSchedule = noise_schedule(settings.diffusion)
        every = np.arange(self.schedule.steps, dtype=np.float64)
        self.alpha = torch.from_numpy(self.schedule.alpha(every)).float().to(self.device)
        self.sigma = torch.from_numpy(self.schedule.sigma(every)).float().to(self.device)
        on_gpu = self.device.type == "cuda"
        self.bfloat16 = self.training.precision == "bfloat16" or (self.training.precision == "auto" and on_gpu)
        if path.exists():
            self.load_checkpoint(path)
        group.check_same(self.step)

    def to_the_end(self, report: Report) -> dict[float, float]:
        """Takes the steps that are left; the last losses, of the first process alone."""
        training, every = self.training, self.training.checkpoint_every
        state = TrainingReport(self.step, training.steps)
        begun, first = time.perf_counter(), self.step
        while self.step < training.steps:
            self.take_step()
            if not self.group.first:
                continue
            due = self.step % every == 0 or self.step == training.steps
            if due:
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                images = (self.step - first) * training.batch * min(3, len(self.supernet.widths))
                state = self._checkpoint(images / (time.perf_counter() - begun))
                begun, first = time.perf_counter(), self.step
            report(replace(state, step=self.step, saved=due, samples=state.samples if due else None))
        return state.losses

    def _checkpoint(self, images_per_second: float) -> TrainingReport:
        """Losses of the step, its checkpoint once they are finite, and samples where they are due."""
        training = self.training
        losses = self.held_out_losses()
        if not all(map(math.isfinite, losses.values())):
            raise InputError(f"the training diverged before step {self.step}; give a smaller training.lr")
        self.save_checkpoint()
        number = -(-self.step // training.checkpoint_every)
        drawn = training.samples_every and (number % training.samples_every == 0 or self.step == training.steps)
        samples = self._samples() if drawn else None
        rate = self.optimizer.param_groups[0]["lr"]
        return TrainingReport(self.step, training.steps, losses, True, rate, images_per_second, samples)

    def _samples(self) -> Pixels:
        classes = self.settings.network.classes
        condition = make_condition(classes, label_counts(self.data, classes), 1.0, self.training.seed)
        return width_samples(self.averaged, self.schedule, self.device, self.training.seed, condition)

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
        # Dropout draws from the global generator.
        torch.manual_seed(_mix(self.training.seed, self.step) + 1 + self.group.rank)
        self.optimizer.zero_grad(set_to_none=True)
        draws = self._noisy_batch(generator)
        targets: list[Tensor] | None = None
        for i, width in enumerate(self._sandwich(generator)):
            if i and not self.training.distill:
                draws = self._noisy_batch(generator)  # fresh images, times and noise: less variance for nothing
            predicted = [
                self._backward(draw, width, targets[part] if targets else None) for part, draw in enumerate(draws)
            ]
            if self.training.distill and targets is None:
                targets = predicted
        self.group.sum_gradients(self.parameters.values())
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.training.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.lr * self._rate(self.step)
        self.optimizer.step()
        self.step += 1
        self._average()

    def _backward(self, draw: Draw, width: float, target: Tensor | None) -> Tensor:
        """Adds the gradient of one micro-batch, by its share of the whole batch; what was predicted."""
        x, t, eps, label = draw
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            predicted = self.supernet(x, t, width, label)
        goal = eps if target is None else torch.lerp(eps, target, self.training.distill)
        (F.mse_loss(predicted.float(), goal) * (len(x) / self.training.batch)).backward()
        return predicted.detach().float()

    def _sandwich(self, generator: torch.Generator) -> list[float]:
        widths = self.supernet.widths
        between = widths[1:-1]
        chosen = [between[int(torch.randint(len(between), (), generator=generator))]] if between else []
        return [widths[-1], *([widths[0]] if len(widths) > 1 else []), *chosen]

    def _noisy_batch(self, generator: torch.Generator) -> list[Draw]:
        """This process's part of a batch, in micro-batches.  The whole batch is drawn, so that it is the same however
        many share it."""
        count, shape = self.training.batch, self.data.images.shape[1:]
        rows = torch.randint(len(self.data.images), (count,), generator=generator)
        mirrored = torch.rand(count, generator=generator) < 0.5 if self.settings.data.flip else None
        t = torch.randint(len(self.alpha), (count,), generator=generator)
        eps = torch.randn((count, *shape), generator=generator)
        labels = self._labels(rows, generator)
        draws = []
        for part in self.group.shares(count, self.training.accumulate):
            x0 = to_float(self.data.images[rows[part].numpy()])
            if mirrored is not None:
                x0 = torch.where(mirrored[part, None, None, None], x0.flip(3), x0)
            times, noise = t[part].to(self.device), eps[part].to(self.device)
            label = None if labels is None else labels[part].to(self.device)
            draws.append((self._noisy(x0.to(self.device), times, noise), times, noise, label))
        return draws

    def _labels(self, rows: Tensor, generator: torch.Generator) -> Tensor | None:
        """The labels of images, some of them dropped to the null class; None for an unconditional network."""
        classes = self.settings.network.classes
        if classes is None or self.data.labels is None:
            return None
        labels = torch.from_numpy(self.data.labels[rows.numpy()])
        dropped = torch.rand(len(labels), generator=generator) < self.training.drop_labels
        return labels.masked_fill(dropped, classes)

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
            # Adam makes its moments in the first step.
            state = self.optimizer.state[weights] or {k: torch.zeros_like(weights) for k in ("exp_avg", "exp_avg_sq")}
            tensors |= {
                f"weights.{name}": weights.detach(),
                f"averaged.{name}": averaged[name].detach(),
                f"first.{name}": state["exp_avg"],
                f"second.{name}": state["exp_avg_sq"],
            }
        on_cpu = {name: value.cpu().contiguous() for name, value in tensors.items()}
        metadata = {"step": str(self.step), "made_from": training_key(self.settings, self.data)}
        metadata["started_from"] = json.dumps(self.started_from)
        write_atomically(self.directory / CHECKPOINT_FILE, lambda path: save_file(on_cpu, path, metadata))
        if self.store is not None:
            self.store.upload(self.directory / CHECKPOINT_FILE)

    def load_checkpoint(self, path: Path) -> None:
        """Goes on from the checkpoint at `path`."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path} is not a whole checkpoint: {error}; delete it to start over") from None
        if metadata.get("made_from") != training_key(self.settings, self.data):
            raise InputError(
                f"{path} was made with other settings or data, or by a version of stepfront with other settings; "
                "go on with that one, train elsewhere, or delete it"
            )
        self.step = int(metadata["step"])
        self.started_from = json.loads(metadata.get("started_from", "null"))
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


def _mix(seed: int, step: int) -> int:
    """A 62-bit seed for one step, far from that of every other step and run."""
    return int(np.random.SeedSequence([seed, step + 1]).generate_state(1, np.uint64)[0] >> 2)
