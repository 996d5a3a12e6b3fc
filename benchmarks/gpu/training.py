"""Parts 2, 3 and 7: how fast each engine trains, the training itself, and a loop without stepfront beside it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.gpu.bench import SPEED, SUPERNET, Bench, Record, peak_mb, rows_of, wait_for
from benchmarks.gpu.plain_loop import measure_plain_loop
from stepfront.files import write_atomically
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.networks.card import CARD_FILE
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import save_supernet
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE, step_of
from stepfront.trainers.training.trainer import TrainingReport, train_supernet
from stepfront.trainers.training_settings import TrainingEngine
from stepfront.trainers.validation import settings_json

WARM_UP = 12
"""Steps before the clock starts: all widths have then been drawn, and are recorded or compiled."""

SHARD_BYTES = 15 * 2**20
MOST_SHARDS = 3


class EnoughError(Exception):
    """The training has run for as long as it may."""


def step_tflops(bench: Bench, data: ImageData) -> float:
    """Return the TFLOPs of one sandwich step in the mean: forward and backward passes are three forward passes."""
    settings = bench.network
    macs = [count_width(settings, data.channels, data.resolution, width).macs for width in settings.widths]
    between = macs[1:-1]
    mean = macs[-1] + (macs[0] if len(macs) > 1 else 0) + (sum(between) / len(between) if between else 0)
    return 3 * 2e-12 * mean * bench.batch


def speed(bench: Bench, record: Record) -> None:
    """Measure the engines that start at once."""
    engines: list[TrainingEngine] = ["plain", "channels_last", *(["cuda_graphs"] if bench.on_gpu else [])]  # type: ignore[list-item]
    _measure_engines(bench, record, engines)


def compiled_speed(bench: Bench, record: Record) -> None:
    """Measure a compiled loop written by hand, then the engines that compile."""
    if not bench.compiles:
        record.note("compiled engines are left out: this is a trial in tiny form on a CPU")
    record.attempt("the loop by hand", lambda: measure_plain_loop(bench, record, bench.compiles))
    if bench.compiles:
        recorded: list[Any] = ["compiled_cuda_graphs"] if bench.on_gpu else []
        _measure_engines(bench, record, ["compiled", *recorded])


def _measure_engines(bench: Bench, record: Record, engines: list[TrainingEngine]) -> None:
    data = bench.images()
    for engine in engines:
        record.attempt(f"training with {engine}", lambda engine=engine: _measure_engine(bench, record, data, engine))


def _measure_engine(bench: Bench, record: Record, data: ImageData, engine: TrainingEngine) -> None:
    settings = bench.settings(steps=10**6, engine=engine, checkpoint_every=10**6)
    seconds, warm_up = bench.measuring_seconds, WARM_UP if bench.on_gpu else 2
    begin, first, last = time.perf_counter(), 0.0, 0.0
    steps = 0

    def report(state: TrainingReport) -> None:
        nonlocal first, last, steps
        if state.step >= warm_up and state.step % 4 == 0:  # the processor must not run far ahead of the GPU
            wait_for(bench.device)
            last = time.perf_counter()
            first, steps = (first, steps) if first else (last, state.step)
            if last - first > seconds:
                steps = state.step - steps
                raise EnoughError

    peak_mb(bench.device)
    try:
        train_supernet(settings, data, Path(bench.work) / f"speed-{engine}", report)
    except EnoughError:
        rate = steps / (last - first)
        record.speed(f"stepfront, {engine}", rate, step_tflops(bench, data), first - begin, bench.device)


def train(bench: Bench, record: Record) -> None:
    """Train with the fastest engine for `bench.seconds`, and save the supernet, also in parts of a few megabytes."""
    data, work = bench.images(), Path(bench.work)
    measured = rows_of(work, "speed", SPEED)
    if not measured:
        _measure_engine(bench, record, data, "plain")
        measured = rows_of(work, "training", SPEED)
    best = max(measured, key=lambda row: row["steps_per_second"])
    engine = best["loop"].rpartition(" ")[2]
    # On a GPU, other parts compile meanwhile.
    steps = max(4, int((0.8 if bench.on_gpu else 0.9) * bench.seconds * best["steps_per_second"]))
    settings = bench.settings(steps=steps, engine=engine, checkpoint_every=max(1, steps // 12), ema=0.9995)
    begin, reported = time.perf_counter(), False

    def report(state: TrainingReport) -> None:
        nonlocal reported
        # A checkpoint is written after its report: the next report shows that there is one.
        if reported and time.perf_counter() - begin > 1.05 * bench.seconds:
            raise EnoughError
        if state.saved:
            losses = {f"loss_{width:g}": round(loss, 5) for width, loss in state.losses.items()}
            seconds, rate = round(time.perf_counter() - begin, 1), round(state.images_per_second)
            record.row("training", step=state.step, seconds=seconds, images_per_second=rate, **losses)
            reported = True

    record.note(f"the training runs {steps} steps of {bench.batch} images per width with the engine {engine}")
    try:
        train_supernet(settings, data, work / SUPERNET, report)
    except EnoughError:
        record.note("the training was ended by the clock; its last checkpoint is used")
        save_averaged(settings, data, work / SUPERNET)
    _save_parts(bench, record)


def save_averaged(settings: TrainerSettings, data: ImageData, directory: Path) -> None:
    """Save the averaged weights of the last checkpoint as a supernet; its card says at which step it stopped."""
    supernet = Supernet(settings.network, data.channels, data.resolution, settings.diffusion)
    with safe_open(directory / CHECKPOINT_FILE, framework="pt") as file:
        weights = {name: file.get_tensor(f"averaged.{name}") for name in supernet.widest.state_dict()}
    supernet.widest.load_state_dict(weights)
    made_with = {"settings": settings_json(settings), "stopped_at": step_of(directory / CHECKPOINT_FILE)}
    save_supernet(supernet, directory, settings.diffusion, data.name, data.fingerprint, made_with)


def _save_parts(bench: Bench, record: Record) -> None:
    """Save the weights in bfloat16, in files that are small enough to be brought back."""
    supernet, card = bench.supernet()
    parts: list[dict[str, Tensor]] = [{}]
    for name, value in supernet.widest.state_dict().items():
        small = value.detach().to(torch.bfloat16).contiguous()
        if sum(each.nbytes for each in parts[-1].values()) + small.nbytes > SHARD_BYTES:
            parts.append({})
        parts[-1][name] = small
    if len(parts) > MOST_SHARDS:
        record.note(f"the weights are not brought back: they would need {len(parts)} files of 15 MiB")
        return
    out = Path(bench.out)
    for number, part in enumerate(parts, start=1):
        write_atomically(out / f"weights-{number}.safetensors", lambda path, part=part: save_file(part, path))
    (out / CARD_FILE).write_text(card.model_dump_json(indent=1), encoding="utf-8")
    record.note(f"weights in bfloat16: {len(parts)} files; digest of the float32 weights {card.digest[:16]}")
