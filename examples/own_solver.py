"""Search with a solver of your own, over the supernet that quickstart.py trained in the same form.

    PYTHONPATH=examples python examples/own_solver.py [--small]

The settings name the solver by its import path.  Workers import it, too, so this folder is on PYTHONPATH.
docs/plugins.md describes the contract, and how to replace the other parts.
"""

from __future__ import annotations

import sys

import quickstart
import torch
from torch import Tensor

import stepfront
from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.diffusion.solvers import Coefficients, now_and_next


def ddim_half(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return DDIM with half of the ancestral noise: eta = 0.5 (Song et al. 2020, eq. 12 and 16)."""
    alpha, sigma, alpha_next, sigma_next = now_and_next(schedule, times)
    noise = 0.5 * sigma_next / sigma * torch.sqrt(1 - (alpha / alpha_next) ** 2)
    a = sigma_next / sigma * torch.sqrt(1 - 0.25 * (1 - (alpha / alpha_next) ** 2) / sigma**2)
    return Coefficients.of_columns(alpha, sigma, a, alpha_next - a * alpha, noise=noise)


def main(small: bool) -> None:
    """Search with the solver, and print the best plan beside that of the quickstart's solver."""
    name = quickstart.run_name(small)
    given = [
        "name=own-solver-small" if small else "name=own-solver",
        "sampler.solver=own_solver:ddim_half",
        "tracking.uri=null",
    ]
    shared = [f"supernet=runs/{name}/supernet", *(quickstart.SMALL if small else [])]
    settings = stepfront.load_settings(quickstart.CONFIG, [*given, *shared])
    for search in (stepfront.open_search(f"runs/{name}"), stepfront.run_search(settings, publish=False)):
        best = search.point("best")
        print(f"{best['solver']:<22} best FID {best['fid']:.3f} at {best['gflops']:.4f} GFLOPs: {best['plan']}")


if __name__ == "__main__":
    main(small="--small" in sys.argv[1:])
