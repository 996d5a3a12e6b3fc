"""Measure what writing a search to MLflow costs: per trial, for 2,000 trials, and for the search, which must not wait.

    make bench-tracking

writes docs/bench-tracking.md.  The trials are made up (a formula for FID), the MLflow stores are real: a SQLite file
written directly, and a server of one worker on loopback over HTTP.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.screenshots import server
from stepfront.search.config import save_settings, settings_from
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.mlflow_runs.open_client import set_environment
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.objectives import Objectives
from stepfront.search.pareto import front_size_history, hypervolume_history
from stepfront.search.records.front import front_table
from stepfront.search.records.run_directory import SETTINGS_FILE
from stepfront.search.tracking.search_runs import SearchRuns
from stepfront.search.tracking.writer_process import MlflowProcess
from stepfront.tables.schema import TRIAL_COLUMNS
from stepfront.tables.search_tables import Snapshot
from stepfront.trainers.variant import runs_text

STEPS, STAGES, GENERATION = 20, 10, 20
OUT = Path("docs/bench-tracking.md")


def made_up_search(count: int) -> Snapshot:
    """Return `count` trials whose FID falls with width and luck, without sampling."""
    rng = np.random.default_rng(0)
    levels = rng.choice([0.25, 0.5, 0.75, 1.0], (count, STAGES))
    widths = np.repeat(levels, STEPS // STAGES, axis=1)
    gflops = 0.0077 * (widths**2).sum(axis=1)
    fid = 0.8 + 4 * (1 - widths).mean(axis=1) ** 2 + rng.exponential(0.3, count)
    trials = pd.DataFrame({"trial": np.arange(count), "generation": np.arange(count) // GENERATION})
    trials = trials.assign(origin="mutation", parents=[[]] * count, genome=["".join(map(str, row)) for row in levels])
    trials = trials.assign(plan=[runs_text(row) for row in widths], widths=list(widths), times=[[]] * count)
    trials = trials.assign(solver="ddim", proxy="fid", paired=0.1, fid=fid, features="classifier", gflops=gflops)
    trials = trials.assign(latency_ms=20 * gflops, images=512, noise_seed=0, seconds=1.0, worker="w0", error="")
    trials = trials.assign(state="complete", elapsed=np.arange(1.0, count + 1), violation=0.0)
    trials = trials.assign(calls=512 * STEPS, calls_saved=0, gflops_saved=0.0, prefix_states=64, prefix_mb=16.0)
    trials = trials.assign(sampling_seconds=0.75, features_seconds=0.15, distance_seconds=0.05, device="cpu, 1 thread")
    trials = trials.assign(learnt="", grid="trailing")
    trials = trials[TRIAL_COLUMNS]
    scores = trials[["fid", "gflops"]].to_numpy()
    progress = pd.DataFrame({"evaluation": np.arange(1, count + 1), "trial": trials["trial"]})
    progress = progress.assign(
        generation=trials["generation"],
        hypervolume=hypervolume_history(scores, [6.0, 0.16]),
        front_size=front_size_history(scores),
        best_fid=np.minimum.accumulate(fid),
        network_gflops=np.cumsum(512 * gflops),
        seconds=trials["elapsed"],
    )
    facts = {"search_id": f"made-up-{count}", "dataset": "digits", "fingerprint": "0" * 64, "full": {"fid": 0.9}}
    return Snapshot(trials, progress, front_table(trials, Objectives(("fid", "gflops"))), facts)


def until(snapshot: Snapshot, count: int) -> Snapshot:
    """Return the search as it was after `count` trials."""
    trials = snapshot.trials.iloc[:count]
    front = front_table(trials, Objectives(("fid", "gflops")))
    return Snapshot(trials, snapshot.progress.iloc[:count], front, snapshot.facts)


def measure(uri: str, count: int) -> dict[str, Any]:
    """Write a search generation by generation, as it grows; then again from nothing, as after an outage."""
    settings = settings_from({"name": "made-up", "tracking": {"uri": uri}})
    client, whole = make_client(uri), made_up_search(count)
    runs = SearchRuns(client, settings, WrittenSearch())
    runs.find(until(whole, GENERATION))
    seconds = []
    for done in range(GENERATION, count + 1, GENERATION):
        snapshot = until(whole, done)
        begin = time.perf_counter()
        runs.write(snapshot)
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    runs.finish(whole, Path("none"), True, "")
    end = time.perf_counter() - begin
    tenth = max(1, len(seconds) // 10)
    again = Snapshot(whole.trials, whole.progress, whole.front, whole.facts | {"search_id": "made-up-again"})
    begin, replayed = time.perf_counter(), WrittenSearch()
    SearchRuns(client, settings, replayed).write(again)
    replay = time.perf_counter() - begin
    begin = time.perf_counter()
    SearchRuns(client, settings, replayed).find(again)
    found = time.perf_counter() - begin
    return {
        "trials": count,
        "whole": sum(seconds) + end,
        "end": end,
        "trial": 1000 * sum(seconds) / count,
        "first": 1000 * sum(seconds[:tenth]) / (tenth * GENERATION),
        "last": 1000 * sum(seconds[-tenth:]) / (tenth * GENERATION),
        "replay": replay,
        "found": found,
    }


def measure_waiting(folder: Path) -> tuple[float, float]:
    """Return how long a search waits to hand a snapshot over, in ms: with a SQLite file, with an unreachable server."""
    waits = []
    for uri in (f"sqlite:///{folder / 'waiting.db'}", "http://127.0.0.1:9"):
        directory = folder / f"search-{len(waits)}"
        directory.mkdir()
        settings = settings_from({"name": "made-up", "tracking": {"uri": uri}})
        save_settings(settings, directory / SETTINGS_FILE)
        mirror = MlflowProcess(settings, directory)
        begin = time.perf_counter()
        for _ in range(100):
            mirror.update()
        waits.append(10 * (time.perf_counter() - begin))
        mirror.stop(0)
    return waits[0], waits[1]


def page(rows: dict[str, dict[str, Any]], waits: tuple[float, float], megabytes: float) -> str:
    """Return the page of documentation."""
    load = os.getloadavg()[2]
    columns = (
        "store",
        "trials",
        "complete search",
        "per trial",
        "first tenth",
        "last tenth",
        "the end",
        "replay",
        "look-up",
    )
    table = [columns, ("---",) * len(columns)]
    for store, row in rows.items():
        times = [f"{row['trial']:.0f} ms", f"{row['first']:.0f} ms", f"{row['last']:.0f} ms"]
        totals = [f"{row['end']:.0f} s", f"{row['replay']:.0f} s", f"{row['found']:.1f} s"]
        table.append((store, f"{row['trials']:,}", f"{row['whole']:.0f} s", *times, *totals))
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    return f"""# What writing to MLflow costs

`make bench-tracking` writes made-up searches generation by generation, as they grow: one child run per trial in three
requests, one more for each that joins or leaves the front, and the parent's history. At the end it writes ranks,
labels, note and artifacts. Measured on {os.cpu_count()} cores that others share, at a mean load of {load:.1f}.

{lines}

Replay is the complete search at once, as after an outage. Look-up is what a driver asks the store before its first
write. The search itself waits {waits[0]:.3f} ms to hand a snapshot over, and {waits[1]:.3f} ms while the server is
unreachable: a process of its own does the writing. Two searches of {rows["SQLite file"]["trials"]:,} trials make a
SQLite file of {megabytes:.0f} MB.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--server-trials", type=int, default=400)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    set_environment()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = {"SQLite file": measure(f"sqlite:///{folder / 'direct.db'}", given.trials)}
        print(rows, flush=True)
        megabytes = (folder / "direct.db").stat().st_size / 1e6
        with server(f"sqlite:///{folder / 'server.db'}") as uri:
            rows["server, one worker, HTTP"] = measure(uri, given.server_trials)
        text = page(rows, measure_waiting(folder), megabytes)
    given.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
