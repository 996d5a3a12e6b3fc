"""Measure a GPU within a fixed time: python -m benchmarks.gpu --data FILE [--minutes 12] [--out runs/bench-gpu].

Each part runs in a process of its own, so that one that fails or hangs costs no more than its time.  After every part
gpu.json and gpu.md are rewritten.  The same command works on a CPU; `--tiny` makes it take seconds.
`--document FILE` writes the GPU section of docs/benchmarks.md from a gpu.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import SUPERNET, Bench
from benchmarks.gpu.report import markdown, write_section
from stepfront.files import read_json, write_json, write_text
from stepfront.trainers.devices import device_name

SHARES: dict[str, tuple[str, float, float]] = {
    # part: title, most of the time that it may take, and the time that the parts after it need at least
    "environment": ("The machine", 0.12, 0.75),
    "speed": ("Training speed", 0.14, 0.65),
    "training": ("Training", 0.50, 0.35),
    "sampling": ("FID of solvers, grids and widths", 0.13, 0.30),
    "latency": ("Latency", 0.18, 0.20),
    "learnt": ("A learnt sampler", 0.14, 0.12),
    "compiled": ("Training speed, compiled", 0.25, 0.03),
    "batches": ("Largest batch", 0.08, 0.0),
}
TRAINING_SHARE = 0.42
REHEARSED = ("latency", "compiled")
"""Parts that compile: they run once beside the training, so that the compiler's cache is filled when they count."""

LEAST_SECONDS = 3.0


def main() -> None:
    """Run all parts, or document the results of an earlier run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--data", help="images: a zip or folder of image files, or an .npz")
    parser.add_argument("--features", default="", help="folder of trained feature networks of these images")
    parser.add_argument("--minutes", type=float, default=12.0, help="time limit of everything")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-gpu"), help="folder of results")
    parser.add_argument("--base", type=int, default=64, help="channels of the network at its first resolution")
    parser.add_argument("--batch", type=int, default=256, help="images per width in a training step")
    parser.add_argument("--supernet", type=Path, help="trained supernet (a folder), for the parts that need one")
    parser.add_argument("--only", choices=SHARES, action="append", help="part to run alone; may be repeated")
    parser.add_argument("--tiny", action="store_true", help="measure little, to see that it runs")
    parser.add_argument("--document", type=Path, help="write docs/benchmarks.md from this gpu.json alone")
    given = parser.parse_args()
    if given.document is not None:
        write_section(Path("docs/benchmarks.md"), read_json(given.document, "results of the GPU benchmark"))
        return
    if not given.data:
        parser.error("--data is missing: a zip or folder of images, such as ../shared/data/cifar10-jpg/cifar10-jpg.zip")
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-gpu-", ignore_cleanup_errors=True) as work:
        if given.supernet is not None:
            shutil.copytree(given.supernet, Path(work) / SUPERNET)
        Run(given, Path(work)).all(given.only)


class Run:
    """One run: the clock, the processes and the files of results."""

    def __init__(self, given: argparse.Namespace, work: Path) -> None:
        self._begin, self._seconds, self._work, self._out = time.monotonic(), 60 * given.minutes, work, given.out
        base, batch = (8, 16) if given.tiny else (given.base, given.batch)
        seconds = min(6.0 if given.tiny else 1e9, TRAINING_SHARE * self._seconds)
        self._bench = Bench(
            str(work), str(given.out.resolve()), given.data, given.features, base, batch, seconds, given.tiny
        )
        self._bench.save()
        began = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        device = device_name(self._bench.device)
        self._results: dict[str, Any] = {"began": began, "device": device, "base": base, "batch": batch}
        self._results |= {"minutes": given.minutes, "parts": {}}

    def all(self, only: list[str] | None) -> None:
        """Run all parts in order, each within its share of what is left; or some, each with all that is left."""
        for name in only or SHARES:
            title, most, after = SHARES[name]
            most, after = (1.0, 0.0) if only else (most, after)
            left = self._seconds - (time.monotonic() - self._begin)
            limit = min(most * self._seconds, left - after * self._seconds)
            if limit < LEAST_SECONDS:
                outcome = f"left out: {left:.0f} s were left"
            else:
                rehearsals = self._rehearse() if name == "training" and self._bench.on_gpu else []
                outcome = self._run(name, limit)
                for process in rehearsals:
                    _kill(process)
            self._keep(name, title, outcome)

    def _start(self, name: str, log: Path, *more: str) -> subprocess.Popen[bytes]:
        # Threads that spin while they wait slow a rehearsal and the training beside it.
        quiet = {"OMP_WAIT_POLICY": "PASSIVE"} | ({"TORCHINDUCTOR_COMPILE_THREADS": "6"} if more else {})
        with open(log, "ab") as file:
            file.write(f"\n--- {name} {' '.join(more)}\n".encode())
            file.flush()
            return subprocess.Popen(
                [sys.executable, "-u", "-m", "benchmarks.gpu.part", name, str(self._work), *more],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **quiet},
            )

    def _run(self, name: str, limit: float) -> str:
        """Run a part in a process, and return how it ended."""
        begin = time.monotonic()
        process = self._start(name, self._out / "log.txt")
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            _kill(process)
            return f"stopped after {limit:.0f} s; the tables hold what it had measured"
        seconds = time.monotonic() - begin
        if code == 0:
            return f"{seconds:.0f} s"
        log = (self._out / "log.txt").read_text(encoding="utf-8", errors="replace")
        last = next(iter(reversed(log.strip().splitlines())), "")
        return f"failed after {seconds:.0f} s (log.txt has the traceback): {last[:300]}"

    def _rehearse(self) -> list[subprocess.Popen[bytes]]:
        """Start the parts that compile, on the supernet as it is at first, where they write tables for nobody."""
        if not (self._work / SUPERNET).exists():
            self._save_untrained()
        return [self._start(name, self._work / "log.txt", f"rehearsal-{name}.json") for name in REHEARSED]

    def _save_untrained(self) -> None:
        from stepfront.trainers.networks.supernet_files import save_supernet
        from stepfront.trainers.training.state import initial_supernet

        settings, data = self._bench.settings(steps=1), self._bench.images()
        supernet = initial_supernet(settings, data)
        save_supernet(supernet, self._work / SUPERNET, settings.diffusion, data.name, data.fingerprint)

    def _keep(self, name: str, title: str, outcome: str) -> None:
        """Add a part to the results, and write them."""
        path = self._work / f"{name}.json"
        content = read_json(path, "tables of a part") if path.exists() else {"tables": {}, "notes": []}
        self._results["parts"][name] = {"title": title, "outcome": outcome, **content}
        self._results["seconds"] = round(time.monotonic() - self._begin, 1)
        write_json(self._out / "gpu.json", self._results)
        write_text(self._out / "gpu.md", markdown(self._results))
        print(f"{self._results['seconds']:6.1f} s  {title}: {outcome}", flush=True)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started, such as the compiler's workers."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    main()
