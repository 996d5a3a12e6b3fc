"""Measure the speed of a search around its networks: driver, utilisation, workers, memory, shared prefixes."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import ray

from benchmarks.sleeping import Gate, Sleeping
from benchmarks.speed_networks import Row, at_least, at_most
from stepfront.search.config import RunSettings, settings_from
from stepfront.search.driver.open_ledger import open_ledger
from stepfront.search.driver.search import run_search
from stepfront.search.driver.search_report import SearchReport
from stepfront.search.execution.ray_session import ray_session
from stepfront.search.execution.worker import Load, LoadEvaluator
from stepfront.search.presets import preset
from stepfront.search.problem import evaluator_parts
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.load import load_problem
from stepfront.search.records.run_directory import find_supernet
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import TRIALS
from stepfront.trainers.networks.card import read_card
from stepfront.trainers.validation import settings_json, validate

GATE_SECONDS = 500.0
"""Seconds after the start of a search for which its sleeping workers wait for the last of them."""


class Clock:
    """A view that notes, at each result, the wall clock and what the driver has spent of its processor."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.busy: list[float] = []

    def update(self, report: SearchReport) -> None:
        self.wall.append(time.perf_counter())
        self.busy.append(time.process_time())


def settings_of(run: Path, directory: Path, **groups: dict[str, Any]) -> RunSettings:
    """Return the digits preset with changes, for a search in `directory` on the supernet of `run`."""

    own = settings_from(preset("digits"))
    supernet = find_supernet(run)
    card = read_card(supernet)
    changed = settings_json(own) | {"directory": str(directory), "name": "bench", "supernet": str(supernet)}
    changed |= {"network": settings_json(card.network), "diffusion": settings_json(card.diffusion)}
    changed["tracking"] |= {"uri": f"sqlite:///{directory / 'mlflow.db'}"}
    changed["evaluation"] |= {"noise_repeats": 0}  # a fixed cost before the first trial, which no row is about
    for name, values in groups.items():
        changed[name] = changed[name] | values
    return validate(RunSettings, changed)


@contextmanager
def searched(
    run: Path, load: Callable[..., Load] | None = None, **groups: dict[str, Any]
) -> Iterator[tuple[Path, Clock]]:
    """Run a complete search, tables and MLflow included, in a folder that is deleted; `load` replaces the evaluator."""
    with tempfile.TemporaryDirectory() as scratch:
        clock = Clock()
        settings = settings_of(run, Path(scratch), **groups)
        with patch.object(evaluator_parts, "LoadEvaluator", load or LoadEvaluator):
            yield run_search(settings, False, clock, lambda text: None), clock


def trials_of(directory: Path) -> pd.DataFrame:
    return read_table(directory / TRIALS)


# --- rows -------------------------------------------------------------------------------------------------------------


def prefixes(run: Path, quick: bool) -> list[Row]:
    """Count network calls of the default search with shared prefixes, with few workers and with many."""
    budget = {"trials": 24 if quick else 120}

    def made(**workers: Any) -> tuple[float, str, float]:
        with searched(run, budget=budget, workers=workers) as (directory, clock):
            trials = trials_of(directory).sort_values("elapsed")
        gflops = 1 - trials.gflops_saved.sum() / (trials.gflops * trials.images).sum()
        share = trials.calls.sum() / (trials.calls + trials.calls_saved).sum()
        told = f"{len(trials)} trials, {trials.worker.nunique()} workers; {gflops:.2f} of the network FLOPs"
        # Work of complete plans per second, once all have started: what the search completed, not what it computed.
        begun = trials.worker.nunique()
        rate = trials.gflops.iloc[begun:].sum() / (clock.wall[-1] - clock.wall[begun - 1])
        return share, told, rate

    few, told, _ = made()
    many, details_of_many, rate = made(count=8, cpus=0.25)
    with patch.object(evaluator_parts, "shared_prefixes", lambda workers: nullcontext()):
        alone, _, rate_alone = made(count=8, cpus=0.25)
    details_of_many += f"; {alone:.2f} of the calls where each worker has only its own states; sharing completes "
    details_of_many += f"{rate / rate_alone:.2f} times as many plans' work per time"
    return [
        at_most("network calls with shared prefixes", few, 0.75, told),
        at_most("the same with eight workers", many, 0.75, details_of_many),
    ]


def space_of(genes: int) -> dict[str, dict[str, Any]]:
    """Return settings of a space of 1,000 genes, one per step; otherwise none, which leaves the preset's 10 stages."""
    if genes != 1000:
        return {}
    return {
        "sampler": {"steps": 1000, "solver": "unipc_2"},
        "space": {"encoding": "steps", "skip": False},
        "training": {"held_out_images": 16},
    }


def driver(run: Path, quick: bool) -> list[Row]:
    """Time what a trial costs beside its evaluation, from ask to MLflow."""
    rows = []
    trials, window = (60, 15) if quick else (2050, 100)
    for genes, most in ((10, 40),) if quick else ((10, 40), (1000, 50)):
        groups = {"budget": {"trials": trials}, "workers": {"engine": "plain"}}
        with searched(run, Sleeping, **groups, **space_of(genes)) as (_, clock):
            wall, busy = (1000 * np.diff(np.array(seconds)) for seconds in (clock.wall, clock.busy))
        first, last = (slice(0, window) if quick else slice(50, 150)), slice(len(wall) - window, None)
        details = f"mean over {trials} trials; of it {busy.mean():.0f} ms of the driver's processor"
        rows.append(at_most(f"driver time per trial, {genes:,} genes, ms", float(wall.mean()), most, details))
        growth = float(wall[last].mean() / wall[first].mean())
        details = f"{window} trials up to trial {trials} against trials {first.start} to {first.stop}"
        details += f"; of the driver's processor {busy[last].mean() / busy[first].mean():.2f}"
        rows.append(at_most(f"growth of driver time, {genes:,} genes", growth, 1.3, details))
    return rows


@dataclass(frozen=True)
class Utilisation:
    """How busy sleeping workers were: the share of their time, how many began, and milliseconds per plan.

    `driver_ms` is of the driver's processor, between its first and its last result.
    """

    share: float
    began: int
    driver_ms: float
    plans_per_second: float


def utilisation(run: Path, workers: int, seconds: float, each: int, genes: int = 10, **settings: Any) -> Utilisation:
    """Measure workers that sleep for `seconds` per plan, `each` plans per worker; `settings` are those of workers.

    The time is from the moment when all had begun until one had nothing more to do; NaN if the latter came first.
    """

    placed = {"count": workers, "cpus": 0.01, "engine": "plain"} | settings
    groups = {"budget": {"trials": workers * each}, "workers": placed, **space_of(genes)}
    with tempfile.TemporaryDirectory() as gate:
        load = partial(Sleeping, seconds=seconds, gate=Gate(gate, workers, time.time() + GATE_SECONDS))
        with searched(run, load, **groups) as (directory, clock):
            trials = trials_of(directory)
    first, last = workers, len(clock.busy) - 1
    driver_ms = 1000 * (clock.busy[last] - clock.busy[first]) / (last - first)
    rate = (last - first) / (clock.wall[last] - clock.wall[first])
    began = trials.groupby("worker").paired
    start, end = began.min().max(), (began.max() + seconds).min()
    if end <= start or len(began) < workers:
        return Utilisation(float("nan"), len(began), driver_ms, rate)
    busy = sum(max(0.0, min(end, b + seconds) - max(start, b)) for b in trials.paired)
    return Utilisation(busy / ((end - start) * len(began)), len(began), driver_ms, rate)


def utilised(run: Path, quick: bool) -> list[Row]:
    """Measure eight workers that sleep for one second."""
    workers = 2 if quick else 8
    found = utilisation(run, workers, 1.0, 10 if quick else 25)
    told = f"{found.began} took part"
    return [at_least(f"utilisation of {workers} simulated workers, 1 s", found.share, 0.95, told)]


def packets(run: Path, quick: bool) -> list[Row]:
    """Compare plans in packets with plans one at a time, where one driver has more workers than it can serve."""
    workers, seconds, each = (3, 0.1, 60) if quick else (4, 0.1, 150)
    alone, together = (utilisation(run, workers, seconds, each, packet_seconds=given) for given in (0.0, None))
    rates = f"{together.plans_per_second:.0f} against {alone.plans_per_second:.0f} plans per second"
    told = f"{workers} workers, {seconds} s; {together.driver_ms:.1f} ms against {alone.driver_ms:.1f} ms; {rates}"
    busy = f"{together.share:.2f} against {alone.share:.2f}"
    return [
        at_most("driver's processor per plan, packets against one at a time", together.driver_ms / alone.driver_ms,
                1.0, told),
        at_least("time that workers are busy, packets against one at a time", together.share / alone.share, 1.0, busy),
    ]  # fmt: skip


def two_workers(run: Path, quick: bool) -> list[Row]:
    """Compare the rates of two real workers and of one, without shared prefixes, which differ by luck."""
    rates = {}
    for count in (1, 2):
        groups = {
            "budget": {"trials": 12 if quick else 60},
            "workers": {"count": count, "prefix_mb": 0.0, "engine": "plain"},
            "screen": {"proxy": "none"},
        }
        with searched(run, **groups) as (directory, clock):
            gflops = trials_of(directory).sort_values("elapsed").gflops.to_numpy()
        # By the networks' work, not by the number: the plans of the two searches differ in cost.
        done = slice(2 * count, None)
        rates[count] = gflops[done].sum() / (clock.wall[-1] - clock.wall[2 * count - 1])
    details = "network FLOPs per second of a digits search after its start, prefixes not shared"
    return [at_least("two workers against one", rates[2] / rates[1], 1.7, details)]


def memory(run: Path, quick: bool) -> list[Row]:
    """Measure the memory that a second worker adds, with the weights of DDSM's network (143 MB)."""
    from benchmarks.speed_networks import ddsm
    from stepfront.search.config import WorkerSettings

    weights = {name: value.detach().numpy().copy() for name, value in ddsm().widest.named_parameters()}
    size = sum(array.nbytes for array in weights.values())
    with ray_session(WorkerSettings(count=2)):
        shared = ray.put(weights)
        holders = [ray.remote(num_cpus=0.1)(Holder).remote(shared) for _ in range(2)]
        first, second = (ray.get(holder.memory.remote()) for holder in holders)
        for holder in holders:
            ray.kill(holder)
    figure = (first["resident"] - second["own"]) / size
    details = f"weights {size / 1e6:.0f} MB; first worker's resident {first['resident'] / 1e6:.0f} MB, second adds "
    details += f"{second['own'] / 1e6:.0f} MB; of the mapped store it shares {second['mapped'] / 1e6:.0f} MB"
    return [at_least("weights that a second worker does not add", figure, 1.0, details)]


class Holder:
    """The part of a worker that holds weights: the widest subnet on the one copy of the node."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        import torch

        from benchmarks.speed_networks import DDSM
        from stepfront.trainers.networks.supernet import Supernet

        with torch.device("meta"):
            supernet = Supernet(DDSM, 3, 32)
        supernet.widest.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, assign=True)
        self._subnet = supernet.eval().subnet(1.0)
        with torch.inference_mode():
            self._subnet(torch.randn(1, 3, 32, 32), torch.zeros(1))

    def memory(self) -> dict[str, int]:
        return memory_of(os.getpid())


def memory_of(process: int) -> dict[str, int]:
    """Return bytes of a process: resident, private, and mapped from Ray's store (Linux)."""
    found, name = {"resident": 0, "own": 0, "mapped": 0}, ""
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            name = line
        elif words[0] == "Rss:":
            found["resident"] += 1024 * int(words[1])
            found["mapped"] += 1024 * int(words[1]) if "plasma" in name else 0
        elif words[0] in ("Private_Clean:", "Private_Dirty:"):
            found["own"] += 1024 * int(words[1])
    return found


# --- simulation -------------------------------------------------------------------------------------------------------


def simulate(run: Path, quick: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return utilisation by workers and seconds, and ask, tell, memory and storage by the number of trials."""
    rows = []
    for workers in (2, 4) if quick else (2, 8, 32, 64):
        for seconds in (1.0,) if quick else (1.0, 10.0):
            found = utilisation(run, workers, seconds, 6 if quick else 24)
            row = {"workers": workers, "began": found.began, "evaluation (s)": seconds}
            rows.append(row | {"utilisation": f"{found.share:.3f}", "driver (ms)": f"{found.driver_ms:.1f}"})
    return pd.DataFrame(rows), _growth(run, (100, 300) if quick else (100, 1000, 2000, 5000))


def _growth(run: Path, counts: tuple[int, ...]) -> pd.DataFrame:
    from stepfront.search.problem.costs import load_or_measure_costs

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        settings = settings_of(run, Path(scratch), budget={"trials": counts[-1]}, workers={"engine": "plain"})
        directory = settings.search_directory
        directory.mkdir(parents=True)
        problem = load_problem(settings)
        with ray_session(settings.workers):
            costs = load_or_measure_costs(problem, directory)
        ledger = open_ledger(problem, costs, directory)
        score = Sleeping(local_parts(problem, costs, 1))()
        asks: list[float] = []
        tells: list[float] = []
        for done in range(1, counts[-1] + 1):
            begin = time.process_time()
            asked = ledger.ask()
            asks.append(time.process_time() - begin)
            if asked is None:
                break
            evaluation = score(problem.plan_of(asked.genome), 512, 0)
            begin = time.process_time()
            ledger.tell(asked.number, evaluation, "here")
            tells.append(time.process_time() - begin)
            if done in counts:
                ask, tell = (1000 * statistics.median(spent[-50:]) for spent in (asks, tells))
                stored = sum(file.stat().st_size for file in directory.glob("study.db*")) / 1e6
                own = memory_of(os.getpid())["own"] / 1e6
                known = {"ask (ms of the processor)": f"{ask:.1f}", "tell (ms of the processor)": f"{tell:.2f}"}
                rows.append({"trials": done} | known | {"driver (MB)": f"{own:.0f}", "storage (MB)": f"{stored:.2f}"})
    return pd.DataFrame(rows)
