"""Run one part of the GPU benchmark in this process: python -m benchmarks.gpu.part NAME WORK [RECORD]."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.gpu import environment, latency, learnt, sampling, training
from benchmarks.gpu.bench import Bench, Record

PARTS: dict[str, Callable[[Bench, Record], None]] = {
    "environment": environment.run,
    "speed": training.speed,
    "training": training.train,
    "sampling": sampling.run,
    "latency": latency.run,
    "learnt": learnt.run,
    "compiled": training.compiled_speed,
    "batches": sampling.batches,
}


def main() -> None:
    """Run the part; its tables go to WORK/NAME.json, or to another file in WORK for a rehearsal."""
    name, work = sys.argv[1], Path(sys.argv[2])
    PARTS[name](Bench.load(work), Record(work / (sys.argv[3] if len(sys.argv) > 3 else f"{name}.json")))


if __name__ == "__main__":
    main()
