"""Run one training loop, as many steps at a time as the standard input asks for: python loops.py KIND SETTINGS.

KIND is `now`, the package stepfront; `before`, the package that an earlier version was (`trainers`); or `bare`, a loop
on a plain network of full width that uses nothing of stepfront's training.  Each line of the standard input is a number
of steps.  The answer is a line with the processor's seconds that they took.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

MANY = 100_000


class Clock:
    """Wait for the next number of steps, and say what they took; called after each step."""

    def __init__(self) -> None:
        self._left, self._begin = 1, time.process_time()  # the first step, which no line asks for, sets up the loop

    def __call__(self, report: object = None) -> None:
        """Count a step."""
        self._left -= 1
        if self._left:
            return
        print(time.process_time() - self._begin, flush=True)
        self._left = int(next(sys.stdin, "0"))
        if not self._left:
            sys.exit()
        self._begin = time.process_time()


def supernet_loop(root: str, training: str, settings: dict[str, Any]) -> None:
    """Train a supernet by the version whose trainers are the package `root`."""
    config, data = import_module(f"{root}.config"), import_module(f"{root}.data")
    validate = config.validate if hasattr(config, "validate") else import_module(f"{root}.validation").validate
    # No checkpoint comes before the last step.
    settings["training"] |= {"steps": MANY, "checkpoint_every": MANY, "samples_every": 0, "device": "cpu"}
    chosen = validate(config.TrainerSettings, settings)
    with tempfile.TemporaryDirectory() as folder:
        import_module(f"{root}.{training}").train_supernet(chosen, data.load_data(chosen.data), Path(folder), Clock())


def bare_loop(settings: dict[str, Any]) -> None:
    """Train a plain network of full width: noise images, predict the noise, one step of Adam."""
    from stepfront.trainers.config import TrainerSettings
    from stepfront.trainers.data import load_data, to_float
    from stepfront.trainers.networks.families import build_backbone
    from stepfront.trainers.validation import validate

    chosen = validate(TrainerSettings, settings)
    data = load_data(chosen.data)
    network = build_backbone(chosen.network, data.channels, data.resolution, 1.0).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    images = to_float(data.images[:4096])
    level = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()[:, None, None, None]
    clock, batch = Clock(), chosen.training.batch
    while True:
        x0, t = images[torch.randint(len(images), (batch,))], torch.randint(1000, (batch,))
        noise = torch.randn_like(x0)
        predicted = network(level[t].sqrt() * x0 + (1 - level[t]).sqrt() * noise, t)
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(predicted, noise).backward()
        optimizer.step()
        clock()


def main() -> None:
    """Run the loop that the command line names."""
    kind, settings = sys.argv[1], json.loads(sys.argv[2])
    if kind == "bare":
        bare_loop(settings)
    elif kind == "now":
        settings["training"]["rule"] = "sandwich"
        supernet_loop("stepfront.trainers", "training.trainer", settings)
    else:
        supernet_loop("trainers", "training", settings)


if __name__ == "__main__":
    main()
