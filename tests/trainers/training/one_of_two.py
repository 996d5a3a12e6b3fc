"""What the processes of tests/trainers/training/test_distributed.py run: a process imports no more than this module."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training.trainer import TrainingReport, train_share


class Recording:
    """Images that remember which of them were read."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.shape, self.read = images, images.shape, list[list[int]]()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.read.append(rows.tolist())
        return self.images[rows]


def recording(data: ImageData) -> tuple[ImageData, Recording]:
    images = Recording(data.images)
    return replace(data, images=images), images


def one_of_two(rank: int, directory: Path, chosen: TrainerSettings, given: ImageData) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"file://{directory}/meet", rank=rank, world_size=2)
    data, images = recording(given)
    seen: list[int] = []

    def report(state: TrainingReport) -> None:
        seen.append(state.step)

    train_share(chosen, data, directory, report, None, Group(rank, 2))
    (directory / f"{rank}.json").write_text(json.dumps({"read": images.read, "reported": seen}))
    dist.destroy_process_group()


def late_by_more_than_a_step_may_take(rank: int, directory: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    patience = timedelta(seconds=3)
    (directory / f"begun-{rank}").touch()
    while not (directory / f"begun-{1 - rank}").exists():  # however long a busy machine takes to start a process
        time.sleep(0.01)
    dist.init_process_group("gloo", f"file://{directory}/meet", rank=rank, world_size=2, timeout=patience)
    group = Group(rank, 2)
    with group.together(60):
        time.sleep(4 * rank)
    group.check_same(3)
    (directory / f"{rank}").touch()
    dist.destroy_process_group()
