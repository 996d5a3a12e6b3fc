"""The pages of benchmarks/samplers: one supernet alone has pages of its own, which presume no other."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.samplers import pages
from benchmarks.samplers.pages import write_pages
from benchmarks.samplers.rows import LEARNT, all_pairs
from benchmarks.samplers.tables import HAND
from stepfront.errors import InputError

PAGES = {"bench-sampler.md", "bench-sampler.svg", "bench-solvers.md"}


def write_rows(runs: Path, name: str, learnt: bool = True, seconds: float = 30) -> None:
    """Write scores of two numbers of steps: each sampler has one more than the one before it."""
    samplers = [f"{solver}, {grid}" for solver, grid in all_pairs()] + list(LEARNT if learnt else ())
    rows = []
    for (i, sampler), steps, seed in product(enumerate(samplers), (4, 8), (0, 1)):
        row = {"plan": f"{steps}x1.00", "steps": steps, "sampler": sampler, "seed": seed, "images": 64}
        row |= {"solver": sampler.split(",")[0], "grid": sampler.split(" ")[-1], "device": "cpu, 1 thread"}
        row |= {"torch": "2", "FD degradations": 1.0 + i, "FD classifier": 2.0 + i}
        if sampler in LEARNT:
            row |= {"start": "ddim", "held_out": 0.1, "start_held_out": 0.2, "train": 0.1, "used": steps == 4}
            row |= {"calls": 10, "seconds": seconds}
        rows.append(row)
    folder = runs / name / "bench-samplers"
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "hand.parquet")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pages, "supernet_line", lambda runs, name: f"{name}: images.")
    monkeypatch.setattr("benchmarks.samplers.learnt_page.gaussians", lambda: "In closed form.")
    return tmp_path / "runs"


def test_one_supernet_alone_leaves_the_joint_pages(runs: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    write_rows(runs, "digits")
    write_rows(runs, "cifar10-16")
    write_pages(runs, docs)
    joint = {path.name: path.read_text() for path in docs.iterdir()}
    assert joint.keys() == PAGES
    assert "cifar10-16" in joint["bench-sampler.md"]
    assert "In closed form." in joint["bench-sampler.md"]
    write_pages(runs, docs, "cifar10-16")
    assert {name: (docs / name).read_text() for name in PAGES} == joint
    own = {name.replace(".", "-cifar10-16.") for name in PAGES}
    assert {path.name for path in docs.iterdir()} == PAGES | own
    for name in own:
        text = (docs / name).read_text()
        assert "cifar10-16" in text or name.endswith("svg")
        assert "digits" not in text
        assert "supernets and" not in text
    learnt = (docs / "bench-sampler-cifar10-16.md").read_text()
    assert "(bench-sampler-cifar10-16.svg)" in learnt
    assert "python -m benchmarks.samplers --supernet cifar10-16" in learnt
    assert "In closed form." not in learnt
    assert "Of 6 learnings, the distance to the teacher's images falls in 6" in learnt
    assert "would use 3\n" in learnt
    assert "GPU" not in learnt


def test_the_joint_pages_link_those_of_one(runs: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    write_rows(runs, "digits")
    write_pages(runs, docs)
    assert "page of its own" not in (docs / "bench-sampler.md").read_text()
    write_pages(runs, docs, "digits")
    write_pages(runs, docs)
    for page in ("bench-sampler", "bench-solvers"):
        assert f"[digits]({page}-digits.md)" in (docs / f"{page}.md").read_text()
        assert f"[{page}.md]({page}.md)" in (docs / f"{page}-digits.md").read_text()


def test_pages_can_be_written_before_all_is_measured(runs: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    with pytest.raises(InputError, match=r"no scores in .*digits"):
        write_pages(runs, docs, "digits")
    write_rows(runs, "digits", learnt=False)
    write_pages(runs, docs, "digits")
    assert "Nothing has been learnt on digits" in (docs / "bench-sampler-digits.md").read_text()
    file = runs / "digits" / "bench-samplers" / "hand.parquet"
    table = pd.read_parquet(file)
    table[table["sampler"] == HAND[-1]].to_parquet(file)
    write_pages(runs, docs, "digits")
    assert "No number of steps has scores of all hand samplers" in (docs / "bench-solvers-digits.md").read_text()


def test_shares_and_multiples_of_one_supernet(runs: Path, tmp_path: Path) -> None:
    """The samplers' scores are 1, 2, ...: the first pair is best, and the first learnt one follows all pairs."""
    write_rows(runs, "digits")
    write_pages(runs, tmp_path, "digits")
    pairs = len(all_pairs())
    share = f"{(1 + pairs) / 1:.2f}"
    assert f"| digits | degradations | {share} | {share} |" in (tmp_path / "bench-sampler-digits.md").read_text()
    second = np.sqrt(2 * 3 / 2)
    assert f"| {HAND[1]} | {second:.2f} | {second:.2f} |" in (tmp_path / "bench-solvers-digits.md").read_text()
