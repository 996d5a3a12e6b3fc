"""Score every plan of a small space.

Plans share their noise, so a depth-first walk over common prefixes needs a fraction of the network calls.

`python -m benchmarks.enumerate --name digits-6` writes the measured FIDs of a space as a table
(benchmarks/plan_table.py), on which methods are compared without the supernet.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.plan_table import ENUMERATED, EnumeratedTable, write_enumerated_table
from benchmarks.problem import Problem, load_problem, table_fields
from stepfront.search.algorithm.proxies import gap_score
from stepfront.tables.parquet import write_table
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.sampler import Sampler, State
from stepfront.trainers.evaluation import PAIRED_IMAGES
from stepfront.trainers.metrics.fid import Moments
from stepfront.trainers.networks.card import CARD_FILE, read_card

STAGES, STEPS = 6, 18
"""The spaces of bench-search: genes, and DDIM steps."""


def enumerate_plans(run: Path, stages: int, steps: int, images: int, work: Path) -> pd.DataFrame:
    """Return the table of all plans: genome, fid, gflops, gap, paired.

    It is stored in `work` under the supernet's digest and read from there the next time.  So are its parts while it is
    made: an interrupted enumeration continues, with the code of that time for what is there.
    """
    digest = read_card(run / "supernet").digest[:8]
    path = work / f"enumeration-{stages}x{steps // stages}-{images}-{digest}.parquet"
    if path.exists():
        return pd.read_parquet(path)
    problem = load_problem(run, stages, steps, images)
    first = range(len(problem.widths))
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [_Job(run, stages, steps, images, (a, b), folder / f"{a}-{b}.parquet") for a in first for b in first]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = []
        for part in pool.imap_unordered(_subtree, jobs):
            parts.append(part)
            print(f"enumerated {sum(map(len, parts))} of {len(problem.widths) ** stages} plans", flush=True)
    table = pd.concat(parts).sort_values("genome").reset_index(drop=True)
    table = table.assign(paired=_paired(table))
    table = table.drop(columns="first")
    write_table(table, path)
    shutil.rmtree(folder)
    return table


@dataclass(frozen=True)
class _Job:
    """The plans whose first two stages have given levels, and the file that keeps their scores."""

    run: Path
    stages: int
    steps: int
    images: int
    first: tuple[int, int]
    path: Path


def _subtree(job: _Job) -> pd.DataFrame:
    if job.path.exists():
        return pd.read_parquet(job.path)
    torch.set_num_threads(1)
    problem = load_problem(job.run, job.stages, job.steps, job.images)
    walk = _Walk(problem, job.images)
    state = walk.sampler.start(range(job.images))
    for stage, level in enumerate(job.first):
        state = walk.stage(state, stage, level)
    walk.below(state, list(job.first))
    rows = pd.DataFrame(walk.rows)
    write_table(rows, job.path)
    return rows


class _Walk:
    def __init__(self, problem: Problem, images: int) -> None:
        self.problem, self.images = problem, images
        search = problem.search
        shape = (search.card.image_channels, search.card.resolution, search.card.resolution)
        self.sampler = Sampler(problem.subnets(), problem.schedule, Noise(0, shape), torch.device("cpu"))
        # Without skips all plans have the same times, so one plan's coefficients serve all; only widths differ.
        self.runs = [self.sampler.prepare(search.uniform_plan(width)) for width in problem.widths]
        self.features = search.features.unpack(torch.device("cpu"))
        self.gap = gap_score(problem.encoding, search.gap)
        self.rows: list[dict[str, object]] = []

    def stage(self, state: State, stage: int, level: int) -> State:
        begin = int(self.problem.encoding.lengths[:stage].sum())
        for position in range(begin, begin + int(self.problem.encoding.lengths[stage])):
            state = self.sampler.step(state, self.runs[level], position, range(self.images))
        return state

    def below(self, state: State, levels: list[int]) -> None:
        if len(levels) == self.problem.encoding.units:
            self._score(state.x, np.array(levels))
            return
        for level in range(len(self.problem.widths)):
            self.below(self.stage(state, len(levels), level), [*levels, level])

    def _score(self, x: Tensor, levels: np.ndarray) -> None:
        moments = Moments.of([self.features(x)])
        self.rows.append(
            {
                "genome": self.problem.encoding.pack(levels),
                "fid": self.problem.search.reference.distance(moments),
                "gflops": self.problem.gflops(levels),
                "gap": self.gap(levels),
                "first": x[:PAIRED_IMAGES].numpy().astype(np.float32).tobytes(),
            }
        )


def _paired(table: pd.DataFrame) -> np.ndarray:
    images = np.stack([np.frombuffer(row, np.float32) for row in table["first"]])
    full = images[table["genome"].to_numpy() == max(table["genome"])]
    return ((images - full) ** 2).mean(axis=1, dtype=np.float64)


def made_table(run: Path, stages: int, steps: int, images: int, work: Path) -> EnumeratedTable:
    """Return the table of measured plans of a run's supernet."""
    found = enumerate_plans(run, stages, steps, images, work)
    sampler = f"{stages} stages of {steps // stages} DDIM steps, trailing grid"
    command = " ".join(["python -m benchmarks.enumerate", *sys.argv[1:]])
    fields = table_fields(load_problem(run, stages, steps, images), run, sampler, command)
    return EnumeratedTable(**fields, fids=found["fid"].to_numpy(), paired=found["paired"].to_numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/digits-sandwich"), help="run with a supernet")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-search"), help="folder for scores")
    parser.add_argument("--name", default="digits-6", help="name of the table")
    parser.add_argument("--images", type=int, default=512, help="images per score")
    given = parser.parse_args()
    if not (given.run / "supernet" / CARD_FILE).exists():
        parser.error(f"no supernet in {given.run} (python -m benchmarks.transfer_supernets makes some)")
    given.work.mkdir(parents=True, exist_ok=True)
    table = made_table(given.run, STAGES, STEPS, given.images, given.work)
    write_enumerated_table(table, ENUMERATED / f"{given.name}.json")


if __name__ == "__main__":
    main()
