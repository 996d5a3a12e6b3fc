"""Write the two pages and the figure from what is measured."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.samplers.figure import draw
from benchmarks.samplers.gaussians import gaussians
from benchmarks.samplers.learnt_page import learnt_page
from benchmarks.samplers.solvers_page import solvers_page
from benchmarks.samplers.tables import read_tables
from stepfront.files import write_text
from stepfront.trainers.metrics.fid import Reference
from stepfront.trainers.networks.card import read_card
from stepfront.version import __version__


def write_pages(runs: Path, docs: Path) -> None:
    """Write docs/bench-solvers.md, docs/bench-sampler.md and docs/bench-sampler.svg."""
    tables = read_tables(runs)
    made = f"Made by `make %s` on {time.strftime('%Y-%m-%d')}, stepfront {__version__}."
    notes = "\n".join(f"- {line}" for line in (supernet_line(runs, name) for name in tables))
    write_text(docs / "bench-solvers.md", solvers_page(tables, made % "bench-solvers", notes))
    draw(tables, docs / "bench-sampler.svg")
    write_text(docs / "bench-sampler.md", learnt_page(tables, made % "bench-sampler", notes, gaussians()))


def supernet_line(runs: Path, name: str) -> str:
    """Say what a supernet is and how it was trained."""
    card = read_card(runs / name / "supernet")
    wanted = card.made_with["settings"]["training"]["steps"]
    stopped = card.made_with.get("stopped_at")
    steps = f"{wanted:,} training steps" if stopped is None else f"stopped after {stopped:,} of {wanted:,} steps"
    images = Reference.load(runs / name / "supernet" / "reference-pixels.npz").count
    side, network = f"{card.resolution}x{card.resolution}", card.network
    multipliers = " ".join(map(str, network.multipliers))
    return f"{name}: {images:,} images of {side}, base {network.base}, multipliers {multipliers}; {steps}."
