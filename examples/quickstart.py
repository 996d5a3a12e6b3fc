"""Train a supernet on scikit-learn's digits, search plans, and sample a point of the front.

    python examples/quickstart.py            # about ten minutes on two cores
    python examples/quickstart.py --small    # half a minute, for a first look at the tables

Results are in runs/quickstart, or runs/quickstart-small.  A second call continues or finds everything complete.
"""

from __future__ import annotations

import sys
from pathlib import Path

import stepfront
from stepfront.trainers.data.image_grid import save_grid

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "digits.yaml"

SMALL = [
    *(
        "data.limit=300",
        "network.base=8",
        "training.steps=30",
        "training.batch=32",
        "features.name=random",
        "features.examine=skip",
    ),
    *("sampler.steps=6", "space.stages=3", "variation.population=4", "budget.trials=10", "evaluation.images=32"),
    *("evaluation.noise_repeats=0", "evaluation.samplers=false", "workers.count=1"),
]
"""Overrides that make everything small; the images are then noise, and only the tables are of interest."""

SMALL_SOLVER = "sampler.solver=unipc_2"
"""Override of the small form: a solver by name, where the preset measures all of them."""


def run_name(small: bool) -> str:
    """Return the name of the run; the small form has a directory of its own, as its settings differ."""
    return "quickstart-small" if small else "quickstart"


def main(small: bool) -> None:
    """Run all steps and print the front."""
    overrides = [f"name={run_name(small)}", "tracking.uri=null", *([*SMALL, SMALL_SOLVER] if small else [])]
    settings = stepfront.load_settings(CONFIG, overrides)

    supernet = stepfront.train(settings)
    print("held-out loss by width:", supernet.held_out_losses)

    search = stepfront.run_search(settings)
    print(search.front()[["label", "trial", "plan", "gflops", "fid"]].to_string(index=False))

    grid = settings.run_directory / "knee.png"
    save_grid(search.sample("knee", images=16), grid)
    print(f"16 images of the knee are in {grid}; the report is {search.report()}")


if __name__ == "__main__":  # Ray's workers import this file, too
    main(small="--small" in sys.argv[1:])
