"""Whole runs: settings in; a trained supernet, or a search directory with study, tables and report, out."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import ray
import torch

from search import tables
from search.config import RunSettings, load_settings, save_settings
from search.encodings import Encoding, Levels, make_encoding
from search.executor import Job, ray_session, run_trials, worker_count
from search.lock import directory_lock
from search.rungs import Screening, correlations, gap_score, rungs_table
from search.sampler import GENOME, BlockNSGAII
from search.seeds import SeedSource, make_seeds
from search.study import Ledger, Limits, open_storage
from search.tracking import Mirror, Snapshot
from search.worker import LoadEvaluator
from trainers.config import validate
from trainers.cost import (
    WidthCost,
    count_width,
    device_name,
    measure_latency,
    pick_device,
    plan_gflops,
    plan_latency_ms,
)
from trainers.data import ImageData, load_data
from trainers.errors import InputError
from trainers.evaluation import Evaluator, EvaluatorParts
from trainers.features import PackedFeatures, prepare_features
from trainers.fid import Reference
from trainers.files import read_json, write_json
from trainers.gap import gap_table
from trainers.noise import noise_schedule, time_grid
from trainers.plan import Plan
from trainers.supernet import (
    CARD_FILE,
    WEIGHTS_FILE,
    SupernetCard,
    check_fingerprint,
    read_card,
    read_weights,
    settings_json,
    supernet_from_weights,
    weights_digest,
)
from trainers.training import CHECKPOINT_FILE, Report, train_supernet

SETTINGS_FILE, FACTS_FILE, COSTS_FILE = "settings.yaml", "search.json", "costs.json"
RUNG = "fid"

Stage = Callable[[str], None]
"""Told what is being done, in a few words."""


def train(settings: RunSettings, fresh: bool, report: Report, stage: Stage) -> tuple[SupernetCard, bool]:
    """Trains the supernet and its features in the run's supernet directory; whether there was anything to do."""
    directory = settings.supernet_directory
    with directory_lock(directory):
        if fresh:
            for name in (CARD_FILE, WEIGHTS_FILE, CHECKPOINT_FILE, SETTINGS_FILE):
                (directory / name).unlink(missing_ok=True)
        stage("reading the images")
        data = load_data(settings.data)
        done = (directory / CARD_FILE).exists()
        if done:
            card = read_card(directory)
            check_fingerprint(card, data.fingerprint, directory)
            _check_same_training(card, settings, directory)
        else:
            save_settings(settings, directory / SETTINGS_FILE)
            stage("training the supernet")
            card = train_supernet(settings, data, directory, report)
        stage("preparing features and reference statistics")
        prepare_features(data, settings.features, directory, pick_device(settings.training.device))
    return card, not done


def _check_same_training(card: SupernetCard, settings: RunSettings, directory: Path) -> None:
    made = card.made_with.get("settings")
    if made is None:
        return
    now = settings_json(settings)
    for group in ("network", "diffusion", "training"):
        for key in made[group]:
            if key not in ("checkpoint_every", "held_out_images", "device") and made[group][key] != now[group].get(key):
                raise InputError(
                    f"the supernet in {directory} was trained with {group}.{key} {made[group][key]!r}, not "
                    f"{now[group].get(key)!r}; give another name, or start over with --fresh"
                )


@dataclass(frozen=True)
class Ingredients:
    """All that a search's scores depend on, loaded and checked against each other."""

    settings: RunSettings
    data: ImageData
    card: SupernetCard
    weights: dict[str, np.ndarray]
    features: PackedFeatures
    reference: Reference

    @staticmethod
    def load(settings: RunSettings) -> Ingredients:
        """InputError when the supernet is missing, damaged, or was made from other data."""
        directory = settings.supernet_directory
        if not (directory / CARD_FILE).exists():
            raise InputError(f"no supernet in {directory}; train one first: stepfront train CONFIG")
        card = read_card(directory)
        data = load_data(settings.data)
        check_fingerprint(card, data.fingerprint, directory)
        if card.network != settings.network:
            raise InputError(f"the supernet in {directory} has another network than these settings")
        weights = read_weights(directory / WEIGHTS_FILE)
        if weights_digest(weights) != card.digest:
            raise InputError(f"{directory / WEIGHTS_FILE} does not belong to its card: the weights' digest differs")
        supernet_from_weights(card, weights, directory / WEIGHTS_FILE)
        packed, reference = prepare_features(data, settings.features, directory, torch.device("cpu"))
        arrays = {name: value.numpy() for name, value in weights.items()}
        return Ingredients(settings, data, card, arrays, packed, reference)

    @cached_property
    def times(self) -> tuple[float, ...]:
        """The sampler's times, noise first."""
        sampler = self.settings.sampler
        return tuple(map(float, time_grid(noise_schedule(self.card.diffusion), sampler.grid, sampler.steps)))

    @cached_property
    def encoding(self) -> Encoding:
        return make_encoding(self.settings.space, self.settings.sampler.steps, self.card.network.widths)

    def plan_of(self, genome: str) -> Plan:
        """The plan of a genome."""
        return Plan(self.times, self.encoding.step_widths(self.encoding.unpack(genome)), self.settings.sampler.solver)

    def uniform_plan(self, width: float) -> Plan:
        """One width at every step."""
        return Plan(self.times, (width,) * len(self.times), self.settings.sampler.solver)

    def parts(self, costs: dict[float, WidthCost], device: str, threads: int) -> EvaluatorParts:
        """What an evaluation worker is made of."""
        batch = self.settings.evaluation.batch
        sampler = self.settings.sampler
        return EvaluatorParts(
            self.card, self.weights, self.features, self.reference, sampler, costs, batch, device, threads
        )

    @cached_property
    def gap(self) -> np.ndarray:
        """The gap table [steps, widths] on held-out images."""
        supernet = supernet_from_weights(self.card, {k: torch.from_numpy(v) for k, v in self.weights.items()})
        subnets = {width: supernet.subnet(width) for width in self.card.network.widths}
        images = self.data.held_out_images[: self.settings.training.held_out_images]
        return gap_table(subnets, noise_schedule(self.card.diffusion), self.times, images, torch.device("cpu"))

    def spec(self) -> dict[str, Any]:
        """What two searches must have in common for their scores to compare."""
        s = self.settings
        return {
            "supernet": self.card.digest,
            "data": self.data.fingerprint,
            "features": f"{self.features.name} {self.features.digest[:12]}",
            "sampler": s.sampler.model_dump(mode="json"),
            "space": s.space.model_dump(mode="json"),
            "images": s.evaluation.images,
            "noise_seed": s.evaluation.noise_seed,
            "objectives": list(s.evaluation.objectives),
            "constraints": list(s.evaluation.constraints),
        }


def measure_costs(ingredients: Ingredients) -> dict[float, WidthCost]:
    """The cost of each width, with latency measured in a worker: the driver may lack the workers' device."""
    settings, card = ingredients.settings, ingredients.card
    workers = settings.workers

    @ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)
    def measure(weights: dict[str, np.ndarray]) -> list[tuple[float, float, str]]:
        torch.set_num_threads(threads_per_worker(settings))
        device = pick_device(worker_device(settings))
        supernet = supernet_from_weights(card, {k: torch.from_numpy(v.copy()) for k, v in weights.items()})
        shape = (card.image_channels, card.resolution, card.resolution)
        batch = min(settings.evaluation.batch, settings.evaluation.images)
        return [
            (width, measure_latency(supernet.subnet(width).to(device), shape, batch, device), device_name(device))
            for width in card.network.widths
        ]

    batch = min(settings.evaluation.batch, settings.evaluation.images)
    costs = {}
    for width, latency, device in ray.get(measure.remote(ray.put(ingredients.weights))):
        counted = count_width(card.network, card.image_channels, card.resolution, width)
        costs[width] = counted.model_copy(update={"latency_ms": latency, "batch": batch, "device": device})
    return costs


def worker_device(settings: RunSettings) -> str:
    """A worker with a share of a GPU runs there, any other on its CPUs."""
    return "cuda" if settings.workers.gpus else "cpu"


def threads_per_worker(settings: RunSettings) -> int:
    """As many threads as CPUs, so that workers do not fight for cores."""
    return max(1, int(settings.workers.cpus))


def load_or_measure_costs(ingredients: Ingredients, directory: Path) -> dict[float, WidthCost]:
    """Costs of a search are measured once and kept: latencies of one search must compare."""
    path = directory / COSTS_FILE
    if path.exists():
        rows = [validate(WidthCost, row) for row in read_json(path, "table of costs")["widths"]]
        return {row.width: row for row in rows}
    costs = measure_costs(ingredients)
    write_json(path, {"widths": [cost.model_dump(mode="json") for cost in costs.values()]})
    return costs


class View(Protocol):
    """What a search tells while it runs; the terminal's live view is one."""

    def update(self, ledger: Ledger, total: int, workers: int) -> None:
        """Called after every result."""


def search(settings: RunSettings, fresh: bool, view: View, stage: Stage, command: str = "") -> Path:
    """Runs the search of the settings to the end of its budget, from where it stands; returns its directory."""
    directory = settings.search_directory
    with directory_lock(directory):
        if fresh:
            _empty(directory)
        stage("reading supernet, images and features")
        ingredients = Ingredients.load(settings)
        with ray_session(settings.workers):
            stage("measuring the widths")
            costs = load_or_measure_costs(ingredients, directory)
            ledger = open_ledger(ingredients, costs, directory)
            save_settings(settings, directory / SETTINGS_FILE)
            if ledger.waiting or not ledger.spent():
                stage("searching")
                _execute(ingredients, costs, ledger, directory, view, command)
        write_tables(ingredients, ledger, costs, directory, command)
    return directory


def open_ledger(ingredients: Ingredients, costs: dict[float, WidthCost], directory: Path) -> Ledger:
    """The study in `directory` with the sampler of the settings."""
    settings = ingredients.settings
    widths = ingredients.card.network.widths
    source = SeedSource(
        encoding=ingredients.encoding,
        width_costs=np.array([float(costs[width].macs) for width in widths]),
        half_log_snr=noise_schedule(ingredients.card.diffusion).half_log_snr(np.array(ingredients.times)),
        gap=lambda: ingredients.gap,
        seed=settings.search_seed,
    )
    seeds = make_seeds(settings.seeds, source)
    screening = make_screening(ingredients, costs)
    sampler = BlockNSGAII(
        ingredients.encoding,
        settings.variation,
        settings.search_seed,
        seeds,
        offspring=settings.screen.offspring,
        screen=screening,
    )
    budget = settings.budget
    full = len(ingredients.times)
    full_costs = {"gflops": 2e-9 * costs[1.0].macs * full, "latency_ms": (costs[1.0].latency_ms or 0.0) * full}
    ledger = Ledger(
        storage=open_storage(settings.storage, directory),
        sampler=sampler,
        objectives=settings.evaluation.objectives,
        constraints=settings.evaluation.constraints,
        limits=Limits(budget.trials, budget.minutes and 60 * budget.minutes, budget.tflops, budget.patience),
        spec=ingredients.spec(),
        full_costs=full_costs,
        attempts=settings.workers.attempts,
    )
    if screening is not None:
        screening.watch(ledger)
    return ledger


def make_screening(ingredients: Ingredients, costs: dict[float, WidthCost]) -> Screening | None:
    """The screening of the settings; None where every child is evaluated."""
    screen, evaluation = ingredients.settings.screen, ingredients.settings.evaluation
    encoding = ingredients.encoding

    def plan_of(levels: Levels) -> Plan:
        return Plan(ingredients.times, encoding.step_widths(levels), ingredients.settings.sampler.solver)

    def costs_of(levels: Levels) -> list[float]:
        priced = {"gflops": plan_gflops, "latency_ms": plan_latency_ms}
        return [priced[name](plan_of(levels), costs) for name in evaluation.objectives[1:]]

    if screen.rung == "gap":
        score = gap_score(encoding, ingredients.gap)
        return Screening(score, lambda t: score(encoding.unpack(t.user_attrs[GENOME])), costs_of, screen.least_tau)
    if screen.rung == "paired":
        evaluator = Evaluator(ingredients.parts(costs, "cpu", 0))
        return Screening(
            lambda levels: evaluator.paired(plan_of(levels), evaluation.noise_seed, screen.images),
            lambda trial: Ledger.result(trial).get("paired") or float("nan"),
            costs_of,
            screen.least_tau,
        )
    return None


def _execute(
    ingredients: Ingredients,
    costs: dict[float, WidthCost],
    ledger: Ledger,
    directory: Path,
    view: View,
    command: str,
) -> None:
    settings = ingredients.settings
    workers = worker_count(settings.workers)
    mirror = Mirror(settings, directory)
    last_written = time.monotonic()

    def on_result() -> None:
        nonlocal last_written
        view.update(ledger, settings.budget.trials or 0, workers)
        due = ledger.finished % settings.variation.population == 0 and time.monotonic() - last_written > 5
        if due and len(ledger.complete):
            mirror.update(write_tables(ingredients, ledger, costs, directory, command))
            last_written = time.monotonic()

    parts = ingredients.parts(costs, worker_device(settings), threads_per_worker(settings))
    job = Job(ingredients.plan_of, settings.evaluation.images, settings.evaluation.noise_seed)
    try:
        run_trials(ledger, LoadEvaluator(parts), job, settings.workers, on_result)
    except KeyboardInterrupt:
        if len(ledger.complete):
            write_tables(ingredients, ledger, costs, directory, command)
        raise
    finally:
        mirror.stop()


def write_tables(
    ingredients: Ingredients, ledger: Ledger, costs: dict[float, WidthCost], directory: Path, command: str
) -> Snapshot:
    """Brings the search's tables and facts in line with its study."""
    settings = ingredients.settings
    trials = tables.trials_table(ledger, ingredients.encoding, ingredients.times, settings.sampler.solver, RUNG)
    if not (trials["state"] == "complete").any():
        reasons = trials["error"].value_counts()
        why = f"; the commonest reason: {reasons.index[0]}" if len(reasons) else ""
        raise InputError(f"no trial of the search in {directory} has a score{why}")
    front = tables.front_table(trials, settings.evaluation.objectives)
    confirmed = tables.read_confirmed(directory)
    if confirmed is not None:
        front = tables.with_confirmation(front, confirmed)
    progress = tables.progress_table(ledger)
    controls = trials[(trials["origin"] == "uniform") & (trials["state"] == "complete")].assign(method="uniform")
    rungs = rungs_table(trials, gap_score(ingredients.encoding, ingredients.gap), ingredients.encoding.unpack)
    facts = search_facts(ingredients, ledger, costs, trials, command, directory) | {"rung_tau": correlations(rungs)}
    tables.write_table(rungs, directory / tables.RUNGS)
    if not (directory / tables.CONTROLS).exists():
        tables.write_table(controls.reset_index(drop=True), directory / tables.CONTROLS)
    tables.write_table(trials, directory / tables.TRIALS)
    tables.write_table(front, directory / tables.FRONT)
    tables.write_table(progress, directory / tables.PROGRESS)
    write_json(directory / FACTS_FILE, facts)
    return Snapshot(trials, progress, front, facts)


def search_facts(
    ingredients: Ingredients,
    ledger: Ledger,
    costs: dict[float, WidthCost],
    trials: pd.DataFrame,
    command: str,
    directory: Path,
) -> dict[str, Any]:
    """search.json: what was searched, on what, and what it took."""
    settings = ingredients.settings
    path = directory / FACTS_FILE
    before = read_json(path, "search") if path.exists() else {}
    full_plan = ingredients.uniform_plan(1.0).runs
    full = trials[(trials["plan"] == full_plan) & (trials["state"] == "complete")]
    full_facts = {k: _finite(full[k].iloc[0]) for k in ("gflops", "fid", "latency_ms")} if len(full) else {}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "search_id": before.get("search_id") or uuid.uuid4().hex[:12],
        "name": settings.name,
        "dataset": ingredients.data.name,
        "fingerprint": ingredients.data.fingerprint,
        "supernet_digest": ingredients.card.digest,
        "features": ingredients.features.name,
        "images": settings.evaluation.images,
        "noise_seed": settings.evaluation.noise_seed,
        "steps": settings.sampler.steps,
        "solver": settings.sampler.solver,
        "grid": settings.sampler.grid,
        "widths": list(ingredients.card.network.widths),
        "encoding": settings.space.encoding,
        "objectives": list(settings.evaluation.objectives),
        "full": full_facts,
        "reference_point": _by_fid_last(ledger),
        "device": next(iter(costs.values())).device,
        "versions": versions(),
        "created": before.get("created") or now,
        "finished": now if ledger.spent() else None,
        "command": command,
        "evaluations": len(ledger.complete),
        "failed": ledger.failed,
        "network_gflops": 1000 * ledger.network_tflops(),
        "seconds": round(max((ledger.result(t).get("elapsed", 0.0) for t in ledger.trials), default=0.0), 1),
        "width_costs": [
            {"width": w, "gmacs": c.macs / 1e9} | _other_costs(c) for w, c in sorted(costs.items(), reverse=True)
        ],
        "savings": before.get("savings"),
        "parent_searches": [name.removeprefix("front:") for name in settings.seeds if name.startswith("front:")],
    }


def _other_costs(cost: WidthCost) -> dict[str, Any]:
    """The columns of a width's cost beside its MACs."""
    return {k: getattr(cost, k) for k in ("parameters", "latency_ms", "batch", "device")}


def versions() -> dict[str, str]:
    """What decides scores and speed."""
    names = ("stepfront", "torch", "numpy", "ray", "optuna", "mlflow", "pandas")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _by_fid_last(ledger: Ledger) -> list[float] | None:
    """The reference point as dashboards draw it: [gflops, fid]; None with other objectives."""
    point = ledger.reference_point()
    return [point[1], point[0]] if point and ledger.objectives == ("fid", "gflops") else None


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.name == "lock":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def find_search(path: Path) -> tuple[Path, RunSettings]:
    """A search directory given as itself or as its run, and its settings."""
    for directory in (path, path / "search"):
        if (directory / FACTS_FILE).exists() and (directory / SETTINGS_FILE).exists():
            return directory, load_settings(directory / SETTINGS_FILE)
    raise InputError(f"no search in {path}; give a directory that `stepfront search` made, such as runs/digits")


FRONT_SEEDS = 16
"""How many plans `--from` takes of an earlier front."""


def warm_settings(settings: RunSettings, searches: Sequence[Path]) -> RunSettings:
    """The settings with the fronts of earlier searches among the seeds."""
    fronts = {f"front:{find_search(path)[0]}": FRONT_SEEDS for path in searches}
    return validate(RunSettings, settings_json(settings) | {"seeds": settings.seeds | fronts})


def resume_settings(path: Path) -> RunSettings:
    """The settings of a search that was begun in `path`, even if it was cut off before its first table."""
    for directory in (path, path / "search"):
        if (directory / SETTINGS_FILE).exists() and directory.name != "supernet":
            return load_settings(directory / SETTINGS_FILE)
    raise InputError(f"no search was begun in {path}; give a directory of `stepfront search`, such as runs/digits")


def extended_settings(path: Path, trials: int | None, minutes: float | None, tflops: float | None) -> RunSettings:
    """The settings of the search in `path` with more budget than it has spent so far, in what is asked for alone."""
    directory, settings = find_search(path)
    if trials is None and minutes is None and tflops is None:
        raise InputError("say how much further: --trials, --minutes or --tflops")
    facts = read_json(directory / FACTS_FILE, "search")
    budget = {
        "trials": trials and int(facts["evaluations"]) + int(facts["failed"]) + trials,
        "minutes": minutes and float(facts["seconds"]) / 60 + minutes,
        "tflops": tflops and float(facts["network_gflops"]) / 1000 + tflops,
        "patience": None,
    }
    return validate(RunSettings, settings_json(settings) | {"budget": budget})


def read_snapshot(directory: Path) -> Snapshot:
    """The tables of a search as they lie on the disk."""
    return Snapshot(
        tables.read_table(directory / tables.TRIALS, "trials"),
        tables.read_table(directory / tables.PROGRESS, "progress"),
        tables.read_table(directory / tables.FRONT, "front"),
        read_json(directory / FACTS_FILE, "search"),
    )
