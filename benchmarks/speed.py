"""Compare the time of evaluations and searches with that of the bare networks.

python -m benchmarks.speed [--run runs/digits] [--only ROW] [--quick] [--simulate]

It prints each figure beside its target (benchmarks/targets.md) and writes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import speed_networks, speed_search
from benchmarks.gpu.report import gpu_section
from benchmarks.markdown import markdown
from benchmarks.speed_networks import Row
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.search.records.versions import versions

ROWS: dict[str, Callable[[Path, bool], list[Row]]] = {
    "bare": speed_networks.bare_loop,
    "slicing": speed_networks.slicing,
    "flops": speed_networks.time_and_flops,
    "distance": speed_networks.distance,
    "prefixes": speed_search.prefixes,
    "driver": speed_search.driver,
    "utilisation": speed_search.utilised,
    "packets": speed_search.packets,
    "workers": speed_search.two_workers,
    "memory": speed_search.memory,
}
HEADER = """# Speed

Each figure is a ratio, or a time, of what was run side by side in one run of

    make bench-speed

Other measurements: MLflow ([bench-tracking.md](bench-tracking.md)), `ask` and `tell` alone
([bench-storages.md](bench-storages.md)), faults ([bench-faults.md](bench-faults.md)), and hypervolume against
evaluations ([bench-search.md](bench-search.md)). `python -m benchmarks.winograd` compares Winograd's convolutions layer
by layer. [scaling.md](scaling.md) discusses the figures. [The last section](#gpu) is of a GPU.

The mixed plan is `1x0.50 2x0.25 1x0.75 1x1.00`, repeated.
"""


def main() -> None:
    """Measure, print and, if no row was left out, write docs/benchmarks.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/digits"), help="run with a supernet of digits")
    parser.add_argument("--only", choices=ROWS, action="append", help="row to measure alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="measure little, to see that it runs, and write nothing")
    parser.add_argument(
        "--simulate", action="store_true", help="measure many sleeping workers and up to 5,000 trials too"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.md"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        lines = [_line(row) for name in given.only or ROWS for row in _printed(ROWS[name](given.run, given.quick))]
        text = f"{HEADER}\n{_machine()}\n\n| measured | figure | how |\n|---|---|---|\n"
        text += "\n".join(lines) + "\n"
        if given.simulate:
            utilised, grown = speed_search.simulate(given.run, given.quick)
            parts = (("Sleeping workers", utilised), ("Growth with the trials", grown))
            for title, table in parts:
                text += f"\n## {title}\n\n{markdown(table)}\n"
                print(table.to_string(index=False), flush=True)
    except InputError as error:
        sys.exit(f"bench-speed: {error}")
    if not given.quick and not given.only:
        write_text(given.out, f"{text}\n{gpu_section(given.out)}")  # `make bench-gpu` fills it, on another machine


def _printed(rows: list[Row]) -> list[Row]:
    for row in rows:
        print(
            f"{row.name}: {row.figure:.3g} (target: {row.target}{'' if row.met else ', missed'}); {row.details}",
            flush=True,
        )
    return rows


def _line(row: Row) -> str:
    return f"| {row.name} | {row.figure:.3g} | {row.details} |"


def _machine() -> str:
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
    said = ", ".join(f"{name} {version}" for name, version in versions().items())
    today = datetime.now(UTC).date().isoformat()
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"{today}; {os.cpu_count()} cores of {processor}, {device}; {said}."


if __name__ == "__main__":
    main()
