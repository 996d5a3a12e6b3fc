"""Take the full width of another supernet as the teacher of a training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.training.batches import NoisyBatch


class Teacher:
    """The predictions of a supernet's widest network; `digest` is that of its weights."""

    def __init__(self, directory: Path, student: Supernet, device: torch.device, autocast: torch.autocast) -> None:
        """Load the teacher onto `device`.

        Raises InputError when it is missing, damaged, or reads or predicts something else than the student.
        """
        supernet, card = load_supernet(directory)
        theirs, ours = _contract(supernet), _contract(student)
        for name, value in theirs.items():
            if value != ours[name]:
                raise InputError(
                    f"training.teacher: the supernet in {directory} has {name} {value}, this training has "
                    f"{ours[name]}; use a teacher with the same"
                )
        self.digest = card.digest
        self._network, self._autocast = supernet.backbone(1.0).to(device), autocast

    @torch.no_grad()
    def __call__(self, batch: NoisyBatch) -> Tensor:
        """Return its predictions [B, C, H, W] for a batch."""
        with self._autocast:
            predicted: Tensor = self._network(batch.x, batch.t, *(() if batch.label is None else (batch.label,)))
        return predicted.float()


def _contract(supernet: Supernet) -> dict[str, object]:
    side = supernet.resolution
    return {
        "images of": f"{supernet.image_channels}x{side}x{side}",
        "network.classes": supernet.settings.classes,
        **{f"diffusion.{name}": value for name, value in supernet.diffusion.model_dump().items()},
    }
