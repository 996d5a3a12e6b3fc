"""Compare the speed of a training step with the first edition's, with a bare loop's and with a matrix product's.

Run it with `make bench-training-speed`; it writes docs/bench-training-speed.md.  The loops run side by side, in
processes of their own, and take turns of a few steps.  What counts is the time of the processor: other work on the
machine changes it little.  The first edition comes from the repository's own history.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.markdown import markdown
from stepfront.files import write_text
from stepfront.search.records.versions import versions
from stepfront.trainers.baselines.plain_network import step_macs
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.validation import validate

ROOT = Path(__file__).parents[2]

FIRST_EDITION = "79a08ef"
"""The last commit of the first edition."""

NETWORK = {"base": 16, "multipliers": [1, 2, 2], "blocks": 1, "widths": [0.25, 0.5, 0.75, 1.0]}
TRAINING = {"batch": 64, "lr": 2.0e-3, "ema": 0.998}
FASHION = {"format": "idx", "path": "../shared/data/fashion-mnist"}

CASES: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    # name: settings, and channels and resolution of the images
    "digits": (
        {
            "data": {"format": "digits"},
            "network": NETWORK | {"multipliers": [1, 2]},
            "training": TRAINING | {"batch": 128},
        },
        (1, 8),
    ),
    "fashion-mnist-16": (
        {"data": FASHION | {"size": 16}, "network": NETWORK | {"attention": [4]}, "training": TRAINING},
        (1, 16),
    ),
    "fashion-mnist-28": ({"data": FASHION, "network": NETWORK | {"attention": [7]}, "training": TRAINING}, (1, 28)),
}


class Loop:
    """A loop in a process of its own."""

    def __init__(self, kind: str, settings: dict[str, Any], python_path: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(python_path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).with_name("loops.py")), kind, json.dumps(settings)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()  # after its first step

    def seconds(self, steps: int) -> float:
        """Take steps, and return the processor's seconds that they took."""
        assert self._process.stdin is not None
        print(steps, file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        while line and not line[:1].isdigit():
            line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a loop has ended; its message stands above")
        return float(line)


@contextmanager
def first_edition(commit: str) -> Iterator[Path]:
    """Yield a folder with the trainers of a commit."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "trainers"], capture_output=True, check=False)
    if archive.returncode:
        raise SystemExit(f"commit {commit} is not in this clone's history: clone it without --depth")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


def product_seconds(side: int, count: int) -> float:
    """Return the processor's seconds of so many products of two square matrices of `side`."""
    left, right = torch.randn(2, side, side)
    begin = time.process_time()
    for _ in range(count):
        left @ right
    return time.process_time() - begin


def measure(name: str, commit: str, rounds: int, steps: int) -> pd.DataFrame:
    """Return a row per round and loop: the processor's seconds per step, and per product of matrices."""
    settings, shape = CASES[name]
    rows = []
    with ExitStack() as stack:
        folder = stack.enter_context(first_edition(commit))
        plain = settings | {"training": settings["training"] | {"engine": "plain"}}
        loops = {
            "now": Loop("now", settings, ROOT / "src"),
            "plain": Loop("now", plain, ROOT / "src"),
            "before": Loop("before", settings, folder),
            "bare": Loop("bare", settings, ROOT / "src"),
        }
        for loop in loops.values():
            stack.callback(loop.close)
        for turn in range(rounds):
            row: dict[str, Any] = {kind: loop.seconds(steps) / steps for kind, loop in loops.items()}
            rows.append(row | {"product": product_seconds(1024, 5) / 5})
            print(f"{name}: {turn + 1} of {rounds} rounds", flush=True)
    return pd.DataFrame(rows).assign(supernet=name)


def row(name: str, rounds: pd.DataFrame) -> dict[str, str]:
    """Return the row of a supernet: medians over rounds, of times and of the ratios within a round."""
    settings, shape = CASES[name]
    validated = validate(TrainerSettings, settings | {"training": settings["training"] | {"rule": "sandwich"}})
    # A step runs forward and backward, which is three forward passes, and a multiplication and an addition are two.
    per_image = 6e-9 * validated.training.batch
    ours = per_image * step_macs(validated, *shape)
    plain = per_image * count_width(validated.network, *shape, 1.0).macs
    product = 2e-9 * 1024**3 / rounds["product"]
    rates = {"now": ours / rounds["now"], "bare": plain / rounds["bare"]}
    gains = {kind: rounds["before"] / rounds[kind] for kind in ("now", "plain")}
    return {
        "supernet": name,
        "ms per step": f"{1000 * rounds['now'].median():.0f}",
        "first edition, ms": f"{1000 * rounds['before'].median():.0f}",
        "times as fast": _range(gains["now"]),
        "with engine plain": _range(gains["plain"]),
        "GFLOP/s": f"{rates['now'].median():.0f}",
        "of a bare loop's": f"{(rates['now'] / rates['bare']).median():.2f}",
        "of a product's": f"{(rates['now'] / product).median():.2f}",
    }


def _range(gains: pd.Series) -> str:
    return f"{gains.median():.2f} ({gains.min():.2f}-{gains.max():.2f})"


def page(table: pd.DataFrame, rounds: int, steps: int) -> str:
    """Return docs/bench-training-speed.md."""
    command, made = f"python -m benchmarks.training_speed --rounds {rounds} --steps {steps}", time.strftime("%Y-%m-%d")
    return f"""# Speed of a training step

Made by `make bench-training-speed` (`{command}`) on {made}.

Versions: {", ".join(f"{k} {v}" for k, v in versions().items())}.

A sandwich step of the supernet, by today's loop and by the first edition's (commit {FIRST_EDITION}), on one thread of a
CPU. The loops take turns of a few steps. Times are those of the processor, and medians over the rounds; in brackets are
the least and the greatest ratio of a round. 1.5 times as fast was asked for. `with engine plain`: the same for
`training.engine: plain`, the first edition's layout of memory. The default is `channels_last`. Layouts change losses by
rounding alone.

The bare loop trains a plain network of full width, with the same batch, fused Adam and nothing else: no averaged
weights, no checkpoints, no noise that depends on the step alone. `of a bare loop's` compares FLOPs per second, since
the supernet's step computes three widths. Narrow layers keep a processor less busy than wide ones. `of a product's` is
against a product of two matrices of 1,024 x 1,024.

{markdown(table)}
"""


def main() -> None:
    """Measure all supernets whose images are there, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_speed", description=__doc__)
    parser.add_argument("--against", default=FIRST_EDITION, help="commit of the first edition")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="steps per turn on digits; larger images take fewer")
    parser.add_argument("--supernet", choices=CASES, action="append", help="default: all")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in given.supernet or CASES:
        rounds = measure(name, given.against, given.rounds, max(1, given.steps * 64 // CASES[name][1][1] ** 2))
        rows.append(row(name, rounds))
        print(rows[-1], flush=True)
    write_text(given.docs / "bench-training-speed.md", page(pd.DataFrame(rows), given.rounds, given.steps))


if __name__ == "__main__":
    main()
