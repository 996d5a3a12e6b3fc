"""Set up the second training of each group of times, and make one supernet of what the groups have learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from stepfront.errors import InputError
from stepfront.files import read_json, write_atomically, write_json
from stepfront.trainers.adaptation.divide_times import divide_times, losses_by_time
from stepfront.trainers.adaptation.merge import Factors, find_factors, merged
from stepfront.trainers.adaptation.sort_channels import channel_streams, sort_for_times
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.network_settings import PROMPTED
from stepfront.trainers.networks.card import CARD_FILE, SupernetCard, TimeGroups, read_card
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import (
    WEIGHTS_FILE,
    load_supernet,
    save_supernet,
    supernet_from_weights,
)
from stepfront.trainers.noise_schedule import noise_schedule
from stepfront.trainers.training.batches import NoiseTable
from stepfront.trainers.training.checkpoint_file import NO_EFFECT_ON_WEIGHTS
from stepfront.trainers.training.held_out import held_out_losses
from stepfront.trainers.training_settings import AdaptSettings
from stepfront.trainers.validation import settings_json

STATE_FILE = "adaptation.json"
"""What a second stage was begun with; a resumed one must be the same."""

OF_THE_GROUPS = ("steps", "lr", "warmup", "times", "other_times", "start")
"""Training settings that a stage sets itself, for each group."""

_OF_THE_RESULT = ("merge", "weights")
"""Settings in `adapt` that decide what becomes of trained groups, not how they are trained."""

CPU = torch.device("cpu")

Given = TypeVar("Given", bound=TrainerSettings)

Losses = dict[float, float]
"""Held-out loss per width."""


@dataclass(frozen=True)
class GroupTraining(Generic[Given]):
    """The training of one group: an ordinary training in `directory`, with settings that start and times decide."""

    number: int
    times: tuple[int, int]
    directory: Path
    settings: Given

    @property
    def done(self) -> bool:
        """Whether the group is trained."""
        return (self.directory / CARD_FILE).exists()


@dataclass(frozen=True)
class SecondStage(Generic[Given]):
    """A second stage in `directory`, which holds a folder per group, from the supernet in `base`."""

    settings: Given
    adapt: AdaptSettings
    data: ImageData
    base: Path
    card: SupernetCard
    directory: Path
    groups: TimeGroups
    device: torch.device = CPU
    """Where held-out losses are computed."""

    @staticmethod
    def checked(
        settings: Given,
        adapt: AdaptSettings,
        data: ImageData,
        base: Path,
        directory: Path,
        device: torch.device = CPU,
    ) -> SecondStage[Given]:
        """Return a second stage that can be begun in `directory`; nothing is written yet.

        Raises InputError where the supernet does not fit settings and data, and where its times can't be divided, or
        its channels sorted, as the settings ask for.
        """
        check_base(read_card(base), settings, base)
        supernet, card = load_supernet(base, data.fingerprint)
        if adapt.sort != "none":
            channel_streams(supernet.widest)
        schedule, losses = noise_schedule(card.diffusion), None
        if adapt.groups.by == "loss":
            losses = losses_by_time(supernet, settings, data, NoiseTable(schedule, CPU))
        groups = divide_times(adapt.groups, schedule, losses)
        return SecondStage(settings, adapt, data, base, card, directory, groups, device)

    def begin(self) -> Self:
        """Begin the stage in its directory, or continue the one that was begun there; return it.

        Raises InputError where the directory holds a stage of another supernet or with other settings.
        """
        self.check_state()
        self.keep_state()
        return self

    @property
    def _begun_with(self) -> dict[str, Any]:
        """What decides the weights of the groups, and what becomes of them."""
        now: dict[str, Any] = {f"adapt.{key}": value for key, value in settings_json(self.adapt).items()}
        left_out = (*NO_EFFECT_ON_WEIGHTS, *OF_THE_GROUPS)
        training = settings_json(self.settings.training)
        return now | {f"training.{key}": value for key, value in training.items() if key not in left_out}

    @property
    def _state(self) -> dict[str, Any]:
        result = {f"adapt.{key}" for key in _OF_THE_RESULT}
        deciding = {name: value for name, value in self._begun_with.items() if name not in result}
        facts = {"supernet": self.card.digest, "first": list(self.groups.first)}
        return facts | deciding | {"data.flip": self.settings.data.flip}

    def keep_state(self) -> None:
        """Write what the stage is begun with, where its directory does not hold that yet."""
        if not (self.directory / STATE_FILE).exists():
            write_json(self.directory / STATE_FILE, self._state)

    def check_state(self) -> None:
        """Raise InputError where the directory holds a stage of another supernet or with other settings."""
        path = self.directory / STATE_FILE
        if not path.exists():
            return
        then = read_json(path, "state of a second stage")
        if then.get("supernet") != self.card.digest:
            raise InputError(
                f"the second stage in {self.directory} was begun from another supernet (digest "
                f"{str(then.get('supernet'))[:12]}, not {self.card.digest[:12]}); start over with --fresh, or give "
                "another name"
            )
        _check_same(then, self._state, f"the second stage in {self.directory} was begun")

    def check_same(self, then: Mapping[str, Any], what: str) -> None:
        """Raise InputError where a result was made with other settings, by dotted name; `what` begins the message."""
        _check_same(then, self._begun_with, what)

    @property
    def folders(self) -> list[Path]:
        """The folders that the groups are trained in, the least noisy group's first."""
        return [self.directory / f"group-{number}" for number in range(len(self.groups.first))]

    def trainings(self) -> list[GroupTraining[Given]]:
        """Return the trainings of all groups, the least noisy first; the supernets that they start from are written."""
        found = []
        for number, times in enumerate(self.groups.times(self.card.diffusion.steps)):
            start = self._start(number, times)
            changes = {name: getattr(self.adapt, name) for name in ("steps", "lr", "warmup", "other_times")}
            changes |= {"start": str(start), "times": times}
            found.append(GroupTraining(number, times, self.folders[number], self._with_training(changes)))
        return found

    def _with_training(self, changes: Mapping[str, object]) -> Given:
        training = self.settings.training.model_copy(update=dict(changes))
        return self.settings.model_copy(update={"training": training})

    def _start(self, number: int, times: tuple[int, int]) -> Path:
        """Return the folder of the supernet that a group starts from, sorted where the settings ask for it."""
        if self.adapt.sort == "none":
            return self.base
        shared = self.adapt.sort == "shared"
        folder = self.directory / ("start" if shared else f"start-{number}")
        if not (folder / CARD_FILE).exists():
            supernet, card = load_supernet(self.base)
            sort_for_times(
                supernet,
                self._with_training({"times": None if shared else times, "other_times": 0.0}),
                self.data,
                self.adapt.sort_batches,
            )
            losses = self.losses(supernet, None if shared else times)
            made_with = {"sorted_from": card.digest, "held_out_losses": {str(w): loss for w, loss in losses.items()}}
            self._save(supernet, folder, made_with)
        return folder

    def losses(self, supernet: Supernet, times: tuple[int, int] | None = None) -> Losses:
        """Return the held-out losses of a supernet at the times of a group, or at all."""
        settings = self._with_training({"times": times})
        noise = NoiseTable(noise_schedule(self.card.diffusion), self.device)
        return held_out_losses(supernet.to(self.device), settings, self.data, noise, self.device)

    def group_losses(self, supernet: Supernet) -> list[Losses]:
        """Return the held-out losses of a supernet at the times of each group."""
        return [self.losses(supernet, times) for times in self.groups.times(self.card.diffusion.steps)]

    def finish(self, directory: Path) -> SupernetCard:
        """Make one supernet of the trained groups and save it in `directory`, merged or with weights per group."""
        base, _ = load_supernet(self.base)
        facts: dict[str, Any] = {"losses_before": _named(self.group_losses(base))}
        if self.adapt.merge:
            supernet, factors = self._merged()
            facts["merge_factors"] = list(factors)
        else:
            supernet = self._grouped()
        facts["losses_after"] = _named(self.group_losses(supernet))
        card = self._save(supernet, directory, self._made_with(supernet, facts))
        if self.adapt.weights == "bfloat16" and not self.adapt.merge:
            half = {name: value.to(torch.bfloat16) for name, value in supernet.widest.state_dict().items()}
            write_atomically(directory / WEIGHTS_FILE, lambda path: save_file(half, path))
        return card

    def _made_with(self, supernet: Supernet, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "settings": settings_json(self.settings),
            "held_out_losses": {str(width): loss for width, loss in self.losses(supernet).items()},
            "adapted": {"from": self.card.digest, "first": list(self.groups.first), **settings_json(self.adapt)},
            **facts,
        }

    def _group_weights(self) -> list[dict[str, Tensor]]:
        return [dict(load_supernet(folder)[0].widest.state_dict()) for folder in self.folders]

    def _grouped(self) -> Supernet:
        weights = {
            f"networks.{number}.{name}": value
            for number, group in enumerate(self._group_weights())
            for name, value in group.items()
        }
        if self.adapt.weights == "bfloat16":  # the file's numbers are those of which losses are reported
            weights = {name: value.to(torch.bfloat16).float() for name, value in weights.items()}
        return supernet_from_weights(self.card.model_copy(update={"groups": self.groups}), weights)

    def _merged(self) -> tuple[Supernet, Factors]:
        start, _ = load_supernet(self._start(0, (0, 0)))
        base, groups = dict(start.widest.state_dict()), self._group_weights()
        before = self.losses(start)

        def loss(factors: Factors) -> float:
            found = self.losses(supernet_from_weights(self.card, merged(base, groups, factors)))
            return sum(found[width] / before[width] for width in before) / len(before)

        factors, _ = find_factors(loss, len(groups))
        return supernet_from_weights(self.card, merged(base, groups, factors)), factors

    def _save(self, supernet: Supernet, directory: Path, made_with: Mapping[str, Any]) -> SupernetCard:
        card = self.card
        facts = (card.diffusion, card.data_name, card.data_fingerprint or self.data.fingerprint, made_with)
        return save_supernet(supernet.cpu(), directory, *facts, card.label_counts, card.class_names, card.latents)


def check_base(card: SupernetCard, settings: TrainerSettings, base: Path) -> None:
    """Raise InputError where the supernet in `base` can't be trained further, or has other settings than these."""
    if card.network.family == PROMPTED:
        raise InputError(
            f"a second stage can't start from {base}: a network of family {PROMPTED} is searched as it is, not trained"
        )
    card.check_ungrouped(f"a second stage can't start from {base}: it")
    if (card.network, card.diffusion) != (settings.network, settings.diffusion):
        raise InputError(
            f"the supernet in {base} has other network or diffusion settings than these; give the settings that it "
            "was trained with"
        )


def _check_same(then: Mapping[str, Any], now: Mapping[str, Any], what: str) -> None:
    """Raise InputError for the first value that differs; what `then` lacks is younger than it, and is not compared."""
    for name, value in now.items():
        if name in then and then[name] != value:
            raise InputError(
                f"{what} with {name} {then[name]}, not {value}; start over with --fresh, or give another name"
            )


def _named(losses: Sequence[Losses]) -> list[dict[str, float]]:
    return [{str(width): loss for width, loss in one.items()} for one in losses]
