"""Make the small search that is damaged, and copies of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.damage.verbs import call
from stepfront.errors import InputError

SETTINGS = {
    "name": "damage",
    "data": {"format": "digits", "limit": 300},
    "network": {"base": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4, "widths": [0.5, 1.0]},
    "training": {"steps": 60, "batch": 16, "checkpoint_every": 30, "held_out_images": 32},
    "features": {"examine": "skip"},
    "sampler": {"steps": 4},
    "space": {"stages": 4},
    "budget": {"trials": 10},
    "initial_plans": {"uniform": 2, "monotone": 4},
    "evaluation": {"images": 64, "batch": 64},
    "confirm": {"images": 32, "seeds": 2, "max_seeds": 2, "features": {"examine": "skip"}},
    "workers": {"count": 1, "engine": "plain"},
}


def write_config(place: Path, **changes: Any) -> Path:
    """Write the settings of a small search in `place`, and return their file."""
    config, runs = place / "c.yaml", place / "runs"
    place.mkdir(parents=True, exist_ok=True)
    own = {"directory": str(runs), "tracking": {"uri": f"sqlite:///{runs / 'mlflow.db'}"}}
    config.write_text(json.dumps(SETTINGS | own | changes))
    return config


def make_base(place: Path, **changes: Any) -> Path:
    """Run a small search with its baselines and confirmation in `place`, and return its run."""
    config, run = str(write_config(place, **changes)), place / "runs" / "damage"
    for words in (
        ["train", config],
        ["search", config],
        ["baselines", str(run), "--evaluations", "2"],
        ["confirm", str(run)],
    ):
        outcome = call(words, run)
        if outcome.code:
            raise InputError(f"the search to be damaged can't be made: {outcome.error or outcome.trace}")
    return run


def files_of(run: Path) -> list[str]:
    """Return the files of the search and its supernet, relative to the run."""
    return sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())


@contextlib.contextmanager
def copy_of(base: Path) -> Iterator[Path]:
    """Yield a copy of a finished run, beside a copy of its MLflow database and RUN-2, which it is compared with."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "runs"
        shutil.copytree(base.parent, place, ignore=shutil.ignore_patterns("mlartifacts"))
        shutil.copytree(base, place / f"{base.name}-2")
        yield place / base.name
