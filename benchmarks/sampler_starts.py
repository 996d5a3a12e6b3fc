"""Measure what the learnt sampler of another supernet is worth as a start of learning.

Run `python -m benchmarks.sampler_starts RUN RUN ...` on runs of supernets, such as runs/digits and those of
`benchmarks.transfer_supernets`; it prints a line per ordered pair.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.learning_settings import LearningSettings
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.sampler_learning.learn import learn_sampler
from stepfront.trainers.sampler_learning.pairs import PairSets, teacher_pairs
from stepfront.trainers.sampler_learning.result import LearningResult
from stepfront.trainers.sampler_learning.starts import EarlierStart

SETTINGS = LearningSettings()


def learner(run: Path) -> Sampler:
    """Return a sampler of the run's supernet at full width."""
    supernet, card = load_supernet(run / "supernet")
    shape = (card.image_channels, card.resolution, card.resolution)
    return Sampler({1.0: supernet.subnet(1.0)}, noise_schedule(card.diffusion), Noise(0, shape), torch.device("cpu"))


def learnt(sampler: Sampler, pairs: PairSets, steps: int, *earlier: EarlierStart) -> LearningResult:
    """Learn times and coefficients from the best closed forms, by the distance, and from earlier samplers."""
    settings = SETTINGS.model_copy(update={"solvers": ("unipc_2", "dpmpp_2m", "ipndm_3")})
    return learn_sampler(sampler, (1.0,) * steps, "solver", settings, pairs=pairs, earlier=earlier)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--steps", nargs="+", type=int, default=[5])
    given = parser.parse_args()
    samplers = {run.name: learner(run) for run in given.runs}
    pairs = {name: teacher_pairs(sampler, SETTINGS) for name, sampler in samplers.items()}
    for steps in given.steps:
        cold = {name: learnt(sampler, pairs[name], steps) for name, sampler in samplers.items()}
        for name, result in cold.items():
            first = min(start.first for start in result.tried)
            print(
                f"{name}, {steps} calls, cold: {first:.4g} before learning; held out {result.start_held_out:.4g} "
                f"by hand, {result.held_out:.4g} learnt, after {result.iterations} steps and {result.seconds:.0f} s",
                flush=True,
            )
            for other in samplers:
                if other == name:
                    continue
                start = EarlierStart(f"the sampler of {other}", cold[other].sampler)
                warm = learnt(samplers[name], pairs[name], steps, start)
                print(
                    f"{name}, {steps} calls, from {other}: {warm.tried[-1].first:.4g} before learning; held out "
                    f"{warm.held_out:.4g} learnt ({warm.held_out / result.held_out:.3f} of cold), from {warm.taken}, "
                    f"after {warm.iterations} steps and {warm.seconds:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
