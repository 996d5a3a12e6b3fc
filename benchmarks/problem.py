"""Score plans of a trained run without Ray, for benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from benchmarks.transfer_supernets import supernet_source
from benchmarks.variants import width_costs
from stepfront.search.config import load_settings
from stepfront.search.genomes.encodings import Encoding, Levels
from stepfront.search.initial_plans.plan_kinds import PlanSource
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.load import load_problem as load_search_problem
from stepfront.search.problem.plan_source import make_plan_source
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.run_directory import SETTINGS_FILE
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import NoiseSchedule, noise_schedule
from stepfront.trainers.evaluator import Evaluator
from stepfront.trainers.inference.cost import WidthCost, plan_gflops
from stepfront.trainers.networks.supernet_files import supernet_from_weights


@dataclass
class Problem:
    """Plans of one encoding over one supernet, scored on `images` images of noise seed 0."""

    search: SearchProblem
    images: int

    @property
    def encoding(self) -> Encoding:
        """The encoding of the plans."""
        return self.search.encoding

    @property
    def widths(self) -> tuple[float, ...]:
        """Widths of the supernet, ascending."""
        return self.search.card.network.widths

    @property
    def schedule(self) -> NoiseSchedule:
        """The supernet's noise schedule."""
        return noise_schedule(self.search.card.diffusion)

    @cached_property
    def costs(self) -> dict[float, WidthCost]:
        """Counted cost of each width."""
        return width_costs(self.search)

    @cached_property
    def evaluator(self) -> Evaluator:
        """The evaluator of plans, in this process."""
        return Evaluator(local_parts(self.search, self.costs, 1))

    def subnets(self) -> dict[float, nn.Module]:
        """Return the subnet of each width."""
        import torch

        card = self.search.card
        weights = {name: torch.from_numpy(array) for name, array in self.search.weights.items()}
        supernet = supernet_from_weights(card, weights)
        return {width: supernet.subnet(width) for width in self.widths}

    def plan(self, levels: Levels) -> Plan:
        """Return the plan of levels."""
        return Plan.of(self.search.times, self.encoding.step_variants(levels), self.search.settings.sampler.solver)

    def gflops(self, levels: Levels) -> float:
        """Return the GFLOPs per image of levels."""
        return plan_gflops(self.plan(levels), self.costs)

    def fid(self, levels: Levels) -> float:
        """Return the FID of levels."""
        return self.evaluator(self.plan(levels), self.images, 0).fid

    def plan_source(self, seed: int) -> PlanSource:
        """Return what initial plans are made from, with this seed."""
        return replace(make_plan_source(self.search, self.costs), seed=seed)


def table_fields(problem: Problem, run: Path, sampler: str, command: str) -> dict[str, Any]:
    """Return what a published table of a run's plans has whatever its scores are (`benchmarks/plan_table.py`).

    `sampler` and `command` say how plans are sampled and what wrote the table.
    """
    source, encoding = problem.plan_source(0), problem.encoding
    step_gflops = np.array([problem.costs[width].step_gflops for width in problem.widths])
    return {
        "widths": problem.widths,
        "steps": encoding.steps,
        "unit_gflops": encoding.lengths[:, None] * step_gflops,
        "gap": np.asarray(source.gap()),
        "half_log_snr": np.asarray(source.half_log_snr),
        "about": {
            "supernet": f"{supernet_source(run.name)}, digest {problem.search.card.digest[:8]}",
            "sampler": sampler,
            "images": problem.images,
            "score": f"FID of {problem.images} images, noise seed 0, features {problem.search.features.name}",
            "command": command,
        },
    }


def load_problem(run: Path, stages: int, steps: int, images: int) -> Problem:
    """Return the problem of `stages` stages and `steps` sampling steps over the supernet of `run`."""
    settings = load_settings(
        run / "supernet" / SETTINGS_FILE,
        [
            f"directory={run.parent}",
            f"supernet={run / 'supernet'}",
            f"space.stages={stages}",
            "space.skip=false",
            "sampler.solver=ddim",  # that of the pages so far
            "sampler.grid=trailing",
            f"sampler.steps={steps}",
            f"evaluation.images={images}",
            f"evaluation.batch={min(images, 256)}",
        ],
    )
    return Problem(load_search_problem(settings), images)
