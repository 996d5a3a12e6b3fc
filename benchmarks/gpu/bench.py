"""Hold what the parts of the GPU benchmark share: settings, data, and tables that survive a killed process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.kept_images import PIXELS_FILE, keep_images, kept_images
from stepfront.files import read_json, write_json
from stepfront.trainers.config import DataSettings, TrainerSettings
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.devices import pick_device
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.training_settings import TrainingSettings

SETTINGS_FILE = "bench.json"
SUPERNET = "supernet"
SPEED = "speed of a training step"


@dataclass(frozen=True)
class Bench:
    """One run of the benchmark: where it works, on what, and how much.

    `work` is a folder for everything, `out` one for what is kept.  `seconds` is the time of the main training.
    """

    work: str
    out: str
    data: str
    features: str
    base: int
    batch: int
    seconds: float
    tiny: bool

    @cached_property
    def device(self) -> torch.device:
        """The first GPU, or the CPU."""
        return pick_device("auto")

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU."""
        return self.device.type == "cuda"

    @property
    def compiles(self) -> bool:
        """Whether compiled networks are measured: on a CPU they take minutes, which a trial in tiny form has not."""
        return self.on_gpu or not self.tiny

    @property
    def measuring_seconds(self) -> float:
        """Seconds of a measurement of steps per second."""
        return (1.0 if self.on_gpu else 0.1) if self.tiny else 4.0

    @property
    def network(self) -> NetworkSettings:
        """The U-Net of Ho et al. 2020 for CIFAR-10 with `base` instead of 128 channels."""
        if self.tiny:
            return NetworkSettings(base=self.base, multipliers=(1, 2), groups=4, group_channels=2)
        return NetworkSettings(base=self.base, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,))

    def settings(self, **training: Any) -> TrainerSettings:
        """Return the settings of a training of this network."""
        common: dict[str, Any] = {"batch": self.batch, "samples_every": 0, "held_out_images": 1024, "warmup": 200}
        return TrainerSettings(
            data=self._data_settings, network=self.network, training=TrainingSettings(**(common | training))
        )

    @property
    def _data_settings(self) -> DataSettings:
        return DataSettings(format="npz" if self.data.endswith(".npz") else "folder", path=self.data, flip=True)

    def images(self) -> ImageData:
        """Load the images; the first process decodes them, later ones read their pixels."""
        folder = Path(self.work)
        if not (folder / PIXELS_FILE).exists():
            keep_images(load_data(self._data_settings), folder)
        return kept_images(folder)

    def supernet(self) -> tuple[Supernet, SupernetCard]:
        """Load the supernet that the part `training` has saved."""
        return load_supernet(Path(self.work) / SUPERNET)

    def save(self) -> None:
        """Write the settings where the parts' processes read them."""
        write_json(Path(self.work) / SETTINGS_FILE, asdict(self))

    @staticmethod
    def load(work: Path) -> Bench:
        """Read the settings of a run."""
        return Bench(**read_json(work / SETTINGS_FILE, "settings of the benchmark"))


class Record:
    """The tables of one part.  The file is rewritten with each row: whatever ends the process, it holds all of them."""

    def __init__(self, path: Path) -> None:
        self._path, self._begin = path, time.perf_counter()
        self._content: dict[str, Any] = {"tables": {}, "notes": []}

    def row(self, table: str, **columns: Any) -> None:
        """Append a row to a table, and print it."""
        self._content["tables"].setdefault(table, []).append(columns)
        print(f"{time.perf_counter() - self._begin:6.1f} s  {table}: {json.dumps(columns)}", flush=True)
        self._write()

    def speed(self, loop: str, rate: float, tflops_per_step: float, start_seconds: float, device: torch.device) -> None:
        """Append a loop of `rate` training steps per second to the table of training speeds."""
        self.row(
            SPEED,
            loop=loop,
            steps_per_second=round(rate, 2),
            tflops=float(f"{rate * tflops_per_step:.4g}"),
            start_seconds=round(start_seconds, 1),
            peak_mb=peak_mb(device),
        )

    def note(self, text: str) -> None:
        """Add a sentence that stands below the tables."""
        self._content["notes"].append(text)
        print(f"{time.perf_counter() - self._begin:6.1f} s  {text}", flush=True)
        self._write()

    def attempt(self, what: str, function: Callable[[], Any]) -> bool:
        """Call a function; an error becomes a note, and the result is False."""
        try:
            function()
        except Exception as error:  # first contact with a device: anything can happen, and the rest shall run
            said = " ".join(str(error).split())[:300]
            self.note(f"{what} failed: {type(error).__name__}: {said}")
            return False
        return True

    def _write(self) -> None:
        write_json(self._path, self._content)


def rows_of(work: Path, part: str, table: str) -> list[dict[str, Any]]:
    """Return the rows that another part has written to a table; none where it has not run."""
    path = work / f"{part}.json"
    rows: list[dict[str, Any]] = read_json(path, "tables of a part")["tables"].get(table, []) if path.exists() else []
    return rows


def wait_for(device: torch.device) -> None:
    """Wait until the device has computed everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mb(device: torch.device) -> float | None:
    """Return the most memory of tensors since the last call, in MiB; None on a CPU."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device) / 2**20
    torch.cuda.reset_peak_memory_stats(device)
    return round(peak, 1)
