"""Write the two pages and the figure from what is measured."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.samplers.figure import draw
from benchmarks.samplers.learnt_page import learnt_page
from benchmarks.samplers.solvers_page import solvers_page
from benchmarks.samplers.supernets import SUPERNETS
from benchmarks.samplers.tables import read_tables
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.trainers.metrics.fid import Reference
from stepfront.trainers.networks.card import read_card
from stepfront.version import __version__


def write_pages(runs: Path, docs: Path, only: str | None = None) -> None:
    """Write docs/bench-solvers.md, docs/bench-sampler.md and docs/bench-sampler.svg from all supernets with scores.

    `only` one supernet has the same with its name, such as docs/bench-sampler-digits.md: rows of others may lie
    elsewhere.  Raises InputError where nothing is measured.
    """
    tables = read_tables(runs, only)
    if not tables:
        where = runs / (only or "NAME") / "bench-samplers"
        raise InputError(f"no scores in {where}: without --page they are measured, with --train also the training runs")
    end = f"-{only}" if only else ""
    made = f"Made by `{{}}` on {time.strftime('%Y-%m-%d')}, stepfront {__version__}."
    solvers, learnt = (f"make {page}" for page in ("bench-solvers", "bench-sampler"))
    if only:
        solvers = learnt = f"python -m benchmarks.samplers --supernet {only}"
    notes = "\n".join(f"- {line}" for line in (supernet_line(runs, name) for name in tables))
    alone = _pages_of_one(docs, "bench-solvers", only)
    write_text(docs / f"bench-solvers{end}.md", solvers_page(tables, made.format(solvers), notes, alone, only))
    draw(tables, docs / f"bench-sampler{end}.svg")
    alone = _pages_of_one(docs, "bench-sampler", only)
    write_text(docs / f"bench-sampler{end}.md", learnt_page(tables, made.format(learnt), notes, alone, only))


def _pages_of_one(docs: Path, page: str, only: str | None) -> str:
    """Return a line that links the pages of single supernets, or from such a page that of all, or ""."""
    if only:
        return f"Other supernets are in [{page}.md]({page}.md)."
    found = [name for name in SUPERNETS if (docs / f"{page}-{name}.md").exists()]
    links = ", ".join(f"[{name}]({page}-{name}.md)" for name in found)
    return f"Measured alone, on a page of its own each: {links}." if found else ""


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
