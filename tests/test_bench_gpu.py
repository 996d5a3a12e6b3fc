"""`make bench-gpu` in tiny form on a CPU, without the libraries that a borrowed GPU machine lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu.report import EMPTY, gpu_section, write_section

ROOT = Path(__file__).resolve().parents[1]

MISSING = ("ray", "optuna", "mlflow", "pandas", "pyarrow", "plotly", "typer", "rich", "matplotlib", "diffusers")

ALL_PARTS = """
import sys
for name in sys.argv[3].split(","):
    sys.modules[name] = None  # importing it raises ImportError
from pathlib import Path
from benchmarks.gpu.bench import Bench, Record
from benchmarks.gpu.part import PARTS
work = Path(sys.argv[1])
bench = Bench(str(work), str(work), sys.argv[2], "", base=8, batch=8, seconds=0.3, tiny=True)
for name, part in PARTS.items():
    part(bench, Record(work / f"{name}.json"))
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    train, test = (generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8) for count in (64, 32))
    np.savez(tmp_path / "images.npz", train_images=train, test_images=test)
    return tmp_path / "images.npz"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=ROOT)


def test_every_part_runs_without_the_libraries_of_a_search(images: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    ended = run("-c", ALL_PARTS, str(work), str(images), ",".join(MISSING))
    assert ended.returncode == 0, ended.stderr[-2000:]
    files = [path for path in work.glob("*.json") if path.stem not in ("bench", "supernet")]
    found = {path.stem: json.loads(path.read_text()) for path in files}
    notes = [note for part in found.values() for note in part["notes"]]
    assert [note for note in notes if "failed" in note] == []
    tables = {title for part in found.values() for title in part["tables"]}
    assert {"environment", "speed of a training step", "training", "FID", "latency of a network call"} <= tables
    assert {"sampling against a loop by hand", "largest batch"} <= tables
    assert (work / "weights-1.safetensors").stat().st_size > 0
    for row in found["latency"]["tables"]["latency of a network call"]:
        assert row["difference"] < 1e-4


def test_a_part_that_fails_is_reported_and_the_next_one_runs(images: Path, tmp_path: Path) -> None:
    parts = ("--only", "sampling", "--only", "environment")  # there is no supernet to sample from
    ended = run("-m", "benchmarks.gpu", "--data", str(images), "--tiny", "--out", str(tmp_path / "out"), *parts)
    assert ended.returncode == 0, ended.stderr[-2000:]
    results = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert results["parts"]["sampling"]["outcome"].startswith("failed after")
    assert "no supernet" in results["parts"]["sampling"]["outcome"]
    assert results["parts"]["environment"]["tables"]["environment"]
    assert "Traceback" in (tmp_path / "out" / "log.txt").read_text()

    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Speed\n\nfigures\n\n{EMPTY}")
    write_section(page, results)
    assert page.read_text().startswith("# Speed\n\nfigures\n\n## GPU\n\n")
    assert "| training images | 64 |" in gpu_section(page)
    assert "Empty" not in page.read_text()
    write_section(page, results)
    assert page.read_text().count("## GPU\n") == 1


def test_a_page_without_results_says_that_it_is_empty(tmp_path: Path) -> None:
    assert gpu_section(tmp_path / "missing.md") == EMPTY
    page = tmp_path / "page.md"
    page.write_text(f"# Speed\n\n{EMPTY}")
    assert gpu_section(page) == EMPTY
