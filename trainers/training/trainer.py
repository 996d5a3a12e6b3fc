"""Train a supernet: the loop over sandwich steps, and its three entry points.

Everything random in a step is a function of (seed, step).  A checkpoint therefore needs no random state, and a resumed
training ends with the same weights as one that was never interrupted.

Networks and dropout draw from the global generators, which are left as the caller had them.

Several processes share each batch: every process draws all of it and takes its part.  Together they compute what one
process computes alone, up to the order of float sums.  Dropout alone is drawn per process and micro-batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from stepfront.errors import InputError
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData, Pixels
from stepfront.trainers.devices import own_generators, pick_device, seed_generators
from stepfront.trainers.diffusion.conditioning import check_classes, label_counts, make_condition
from stepfront.trainers.diffusion.preview import width_samples
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.latents.load_images import load_decoder
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.supernet_files import save_supernet
from stepfront.trainers.training.batches import BatchSource, NoiseTable, step_generator, step_seed
from stepfront.trainers.training.checkpoint_file import (
    CHECKPOINT_FILE,
    read_checkpoint,
    training_key,
    write_checkpoint,
)
from stepfront.trainers.training.checkpoints import CheckpointStore
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training.held_out import depth_losses, losses_by_size
from stepfront.trainers.training.sandwich import (
    WidthBatches,
    add_gradients,
    draw_ahead,
    draw_step,
    images_per_step,
    share_of,
)
from stepfront.trainers.training.starting_weights import start_from
from stepfront.trainers.training.state import TrainingState, initial_supernet, state_of
from stepfront.trainers.training.teacher import MOST_IMAGES, Teacher, weights_of_data
from stepfront.trainers.training.width_gradients import SpectralTerm, WidthGradients, training_autocast
from stepfront.trainers.validation import settings_json
from stepfront.trainers.variant import Size


@dataclass
class TrainingReport:
    """Progress of a training after one step.

    `losses` are held-out noise-prediction errors per width at full depth, of the averaged weights, and `depth_losses`
    those at other depths, by texts such as `0.50d2`.  `saved` is true when a checkpoint of this step has just been
    written.  `images_per_second` counts every image that a width was trained on since the
    previous checkpoint, in all processes.  `samples` are `width_samples`, at the checkpoints that draw them.
    """

    step: int
    total: int
    losses: dict[float, float] = field(default_factory=dict)
    depth_losses: dict[str, float] = field(default_factory=dict)
    saved: bool = False
    learning_rate: float = 0.0
    images_per_second: float = 0.0
    samples: Pixels | None = None
    time: int = field(default_factory=lambda: int(1000 * time.time()))
    """When it was made, in milliseconds since 1970."""

    @property
    def row(self) -> dict[str, float]:
        """The row of training.parquet that a saved report is."""
        speed = {"images_per_second": self.images_per_second, "learning_rate": self.learning_rate}
        losses = {f"loss/{width:g}": loss for width, loss in self.losses.items()}
        losses |= {f"loss/{size}": loss for size, loss in self.depth_losses.items()}
        return {"step": self.step, "time": self.time} | speed | losses


Report = Callable[[TrainingReport], None]
"""Receives a report after every step."""


def train_supernet(
    settings: TrainerSettings,
    data: ImageData,
    directory: Path,
    report: Report = lambda report: None,
    store: CheckpointStore | None = None,
    group: Group | None = None,
) -> SupernetCard:
    """Train to the last step, from the checkpoint in `directory` if there is one, and save the averaged weights there.

    `store` keeps a copy of the checkpoint, which is used when `directory` has none or an older one.
    Raises InputError when the checkpoint is damaged or was made with other settings or data, when network.classes does
    not fit the labels, or when the training diverges.
    """
    group = group or Group()
    with own_generators(_device_of(settings, group)):
        training = _Training(settings, data, Path(directory), store, group)
        losses = training.run(report) or training.held_out_losses()
    made_with = {
        "settings": settings_json(settings),
        "held_out_losses": {str(size.width): loss for size, loss in losses.items() if size.depth is None},
        **({"depth_losses": shallow} if (shallow := depth_losses(losses)) else {}),
        "started_from": training.state.started_from,
        "teacher": training.teacher_digest,
        "images_read": data.report.lines(),
    }
    counts = label_counts(data, settings.network.classes)
    latents = None if data.latents is None else data.latents.space
    facts = (settings.diffusion, data.name, data.fingerprint, made_with, counts, data.class_names, latents)
    return save_supernet(training.state.averaged, Path(directory), *facts)


def begin_training(
    settings: TrainerSettings, data: ImageData, directory: Path, store: CheckpointStore | None = None
) -> int:
    """Ensure that there is a checkpoint from which processes can begin, and return its step.

    Raises InputError as `train_supernet` does, so that mistakes surface before any process starts.
    """
    group = Group(device=torch.device("cpu"))
    with own_generators(_device_of(settings, group)):
        training = _Training(settings, data, Path(directory), store, group)
    if training.state.step == 0 or store is not None:
        training.save()
    return training.state.step


def train_share(
    settings: TrainerSettings,
    data: ImageData,
    directory: Path,
    report: Report,
    store: CheckpointStore | None,
    group: Group,
) -> None:
    """Run one process of several, from the checkpoint of `begin_training` to the last step.

    Only the first process writes and reports.
    """
    with own_generators(_device_of(settings, group)):
        _Training(settings, data, Path(directory), store, group).run(report)


def _device_of(settings: TrainerSettings, group: Group) -> torch.device:
    return group.device if group.device is not None else pick_device(settings.training.device)


class _Training:
    """One training in one process, at the step of its checkpoint or at step 0."""

    def __init__(
        self, settings: TrainerSettings, data: ImageData, directory: Path, store: CheckpointStore | None, group: Group
    ) -> None:
        check_classes(data, settings.network.image_classes)
        self._settings, self._data, self._store, self._group = settings, data, store, group
        self._device = _device_of(settings, group)
        self._space = None if data.latents is None else data.latents.space
        self._path, self._key = directory / CHECKPOINT_FILE, training_key(settings, data)
        if store is not None:
            store.fetch(self._path)
        self.state = self._initial_state()
        self._teacher = self._load_teacher()
        self.state.teacher = self.teacher_digest
        if self._path.exists():
            read_checkpoint(self._path, self.state, self._key)
        group.check_same(self.state.step)
        self._schedule = noise_schedule(settings.diffusion)
        self._noise = NoiseTable(self._schedule, self._device)
        self._source = BatchSource(settings, data, self._noise, group, self._device)

    def _initial_state(self) -> TrainingState:
        training = self._settings.training
        supernet, started_from = initial_supernet(self._settings, self._data), None
        if training.start and not self._path.exists():
            started_from = start_from(supernet, Path(training.start), self._settings.diffusion, self._space)
        state = state_of(supernet, training, self._device)
        state.started_from = started_from
        return state

    def _load_teacher(self) -> Teacher | None:
        folder = self._settings.training.teacher
        if not folder:
            return None
        return Teacher(Path(folder), self.state.supernet, self._device, self._autocast(), self._space)

    def run(self, report: Report) -> dict[Size, float]:
        """Take the remaining steps; return the losses of the last one, in the first process alone."""
        training, state = self._settings.training, self.state
        last, losses = TrainingReport(state.step, training.steps), dict[Size, float]()
        begin, first = time.perf_counter(), state.step
        gradients = WidthGradients(state.supernet, training.engine, self._autocast(), self._spectral_term())
        # Averaging is one launch where both have one layout.
        state.averaged.widest.to(memory_format=gradients.layout)  # type: ignore[call-overload]
        state.follow_layout()  # a checkpoint's moments were read before the engine chose one
        steps = draw_ahead(self._draw, range(state.step, training.steps), self._device)
        for drawn in steps:
            self._take_step(gradients, drawn)
            if not self._group.first:
                continue
            saving = state.step % training.checkpoint_every == 0 or state.step == training.steps
            if saving:
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
                images = (state.step - first) * images_per_step(training, state.supernet.sizes)
                losses = self.held_out_losses()
                last = self._measured(losses, images / (time.perf_counter() - begin))
                state.rows = [*state.rows, last.row]
            report(replace(last, step=state.step, saved=saving, samples=last.samples if saving else None))
            if saving:
                # After the report: a training that is killed in between takes and reports these steps again.  The other
                # way round, it would never report them.
                self.save()
                begin, first = time.perf_counter(), state.step
        return losses

    def _draw(self, step: int) -> list[WidthBatches]:
        training = self._settings.training
        return draw_step(self._source, training, self.state.supernet.sizes, step_generator(training.seed, step))

    def _take_step(self, gradients: WidthGradients, drawn: list[WidthBatches]) -> None:
        training, state = self._settings.training, self.state
        for (width, depth), batches in drawn:
            for batch in batches:
                if not gradients.recorded(width, batch.x0, batch.label, depth):
                    share = share_of(training, state.supernet.widths, width, len(batch.x0))
                    is_taught = self._teacher is not None or (training.distills and (width, depth) != drawn[0].size)
                    gradients.record(width, self._source.noisy(batch), share, is_taught, depth)
        state.optimizer.zero_grad(set_to_none=False)
        # Dropout draws from the global generator.
        seed_generators(self._device, step_seed(training.seed, state.step) + 1 + self._group.rank)
        add_gradients(gradients, self._source, drawn, training, state.supernet.widths, self._teacher)
        state.update(training, self._group)

    def _spectral_term(self) -> SpectralTerm | None:
        factor = self._settings.training.distill_spectrum
        if not factor:
            return None
        return SpectralTerm(factor, weights_of_data(self._data.of_network(MOST_IMAGES)).to(self._device))

    def _autocast(self) -> torch.autocast:
        return training_autocast(self._settings.training, self._device)

    @property
    def teacher_digest(self) -> str | None:
        """The digest of the teacher's weights; None without a teacher from a folder."""
        return None if self._teacher is None else self._teacher.digest

    def held_out_losses(self) -> dict[Size, float]:
        """Return the loss of every width and depth of the averaged weights."""
        averaged = self.state.averaged
        return losses_by_size(averaged, self._settings, self._data, self._noise, self._device, averaged.sizes)

    def _measured(self, losses: dict[Size, float], images_per_second: float) -> TrainingReport:
        """Report losses, which must be finite for a checkpoint, and draw samples when they are due."""
        training, state = self._settings.training, self.state
        if not all(map(math.isfinite, losses.values())):
            raise InputError(f"the training diverged before step {state.step}; set a smaller training.lr")
        number, every = -(-state.step // training.checkpoint_every), training.samples_every
        drawing = every and (number % every == 0 or state.step == training.steps)
        samples = self._samples() if drawing else None
        rate = state.optimizer.param_groups[0]["lr"]
        widths, shallow = {w: loss for (w, depth), loss in losses.items() if depth is None}, depth_losses(losses)
        return TrainingReport(state.step, training.steps, widths, shallow, True, rate, images_per_second, samples)

    def save(self) -> None:
        """Write the checkpoint, and copy it to the store if there is one."""
        write_checkpoint(self._path, self.state, self._key)
        if self._store is not None:
            self._store.upload(self._path)

    def _samples(self) -> Pixels:
        classes, seed = self._settings.network.classes, self._settings.training.seed
        condition = make_condition(classes, label_counts(self._data, classes), 1.0, seed)
        packed = load_decoder(self._data)
        decode = None if packed is None else packed.unpack(self._device)
        return width_samples(self.state.averaged, self._schedule, self._device, seed, condition, decode)
