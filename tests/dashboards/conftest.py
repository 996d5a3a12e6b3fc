"""A search directory made from a formula: FID falls with width, most at late steps; GFLOPs are width squared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

WIDTHS = (0.25, 0.5, 0.75, 1.0)
FULL_MS = 8.0


def gflops_of(plan: np.ndarray) -> float:
    return float((plan**2).sum() * 0.6)


def fid_of(plan: np.ndarray) -> float:
    hardness = np.linspace(0.2, 1.8, len(plan))
    return float(18 + 40 * (hardness * (1 - plan) ** 1.5).mean())


def text_of(plan: np.ndarray) -> str:
    runs = [(width, len(list(run))) for width, run in groupby(plan)]
    return " ".join(f"{count}xskip" if width == 0 else f"{count}x{width:.2f}" for width, count in runs)


def trial_row(trial: int, plan: np.ndarray, origin: str, generation: int) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": trial, "generation": generation, "origin": origin, "parents": [], "genome": ""}
    row |= {"plan": text_of(plan), "widths": plan.tolist(), "times": np.linspace(999, 0, len(plan)).tolist()}
    row |= {"solver": "ddim", "grid": "trailing", "fid": fid_of(plan), "features": "pixels", "gflops": gflops_of(plan)}
    latency = FULL_MS * (0.3 + 0.7 * gflops_of(plan) / gflops_of(np.ones(len(plan))))
    row |= {"latency_ms": latency, "images": 1000, "noise_seed": 0, "seconds": 1.5, "worker": f"w{trial % 2}"}
    row |= {"elapsed": 10.0 + 1.5 * (trial // 2 + 1)}
    return row | {"state": "complete", "error": ""}


def random_plan(generator: np.random.Generator, steps: int) -> np.ndarray:
    """Three stages, wider towards the image more often than not; now and then a skipped step."""
    cuts = np.sort(generator.integers(0, steps + 1, 2))
    widths = generator.choice(WIDTHS, 3)
    if generator.random() < 0.7:
        widths = np.sort(widths)
    plan = np.repeat(widths, np.diff([0, *cuts, steps]))
    if generator.random() < 0.25:
        plan[generator.integers(0, steps // 2, 2)] = 0.0
    return plan


def make_trials(count: int, generations: int, steps: int) -> pd.DataFrame:
    generator = np.random.default_rng(7)
    rows = [trial_row(index, np.full(steps, width), "uniform", 0) for index, width in enumerate(WIDTHS)]
    origins = ("cuts", "crossover", "mutation", "random")
    for trial in range(len(rows), count):
        generation = trial * generations // count
        origin = origins[trial % 4] if generation else "snr"
        row = trial_row(trial, random_plan(generator, steps), origin, generation)
        rows.append(row | {"fid": row["fid"] + abs(generator.normal(0, 2))})
    rows[5] |= {"fid": np.nan, "state": "failed", "error": "<script>alert('worker')</script> & lost"}
    return pd.DataFrame(rows)


def make_front(trials: pd.DataFrame, confirmed: bool) -> pd.DataFrame:
    ordered = trials[trials.state == "complete"].sort_values(["gflops", "fid"])
    front = ordered[ordered.fid < ordered.fid.cummin().shift(fill_value=np.inf)].reset_index(drop=True)
    shift = 0.3 if confirmed else np.nan
    front = front.assign(
        fid_confirmed=front.fid + shift, fid_low=front.fid + shift - 0.5, fid_high=front.fid + shift + 0.4
    )
    front = front.assign(confirm_images=5000 * confirmed, confirm_seeds=3 * confirmed, belongs=True, label="")
    front.loc[0, "label"], front.loc[len(front) // 2, "label"], front.loc[len(front) - 1, "label"] = (
        "cheapest",
        "knee",
        "best",
    )
    if confirmed:
        front.loc[2, "belongs"] = False
    return front


def make_confirm(front: pd.DataFrame, full: dict[str, float]) -> pd.DataFrame:
    rows = [
        {
            "kind": "front",
            "label": row.label,
            "trial": row.trial,
            "plan": row.plan,
            "fid_search": row.fid,
            "fid": row.fid + 0.3,
        }
        for row in front.itertuples()
    ]
    rows.append({"kind": "full", "label": "", "trial": None, "plan": "20x1.00", "fid_search": full["fid"]})
    rows[-1]["fid"] = full["fid"] + 0.1
    return pd.DataFrame(rows).assign(gflops=1.0, latency_ms=np.nan, noise_seed=1, images=5000)


def make_facts(name: str, full: dict[str, float], front: pd.DataFrame, confirmed: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"search_id": "s1", "name": name, "dataset": "shapes", "features": "pixels"}
    facts |= {
        "images": 1000,
        "steps": 20,
        "solver": "ddim",
        "widths": list(WIDTHS),
        "full": full,
        "network_gflops": 2.4e6,
    }
    facts |= {"versions": {"torch": "2.9.0", "ray": "2.50.0"}, "seconds": 3725, "command": "stepfront search a.yaml"}
    facts["width_costs"] = [
        {
            "width": w,
            "gmacs": 0.3 * w * w,
            "parameters": int(4e6 * w * w),
            "latency_ms": 3 * w,
            "batch": 64,
            "device": "cpu",
        }
        for w in WIDTHS
    ]
    facts["reference_point"] = [12.5, 70.0]
    if confirmed:
        point = front.iloc[len(front) // 2]
        facts["savings"] = make_claim(point, full)
    return facts


def make_claim(point: Any, full: dict[str, float]) -> dict[str, Any]:
    """Return a claim that holds, as search/claims/claim.py makes it."""
    own = {"plan": "20x1.00", "sampler": "", "gflops": full["gflops"], "latency_ms": FULL_MS, "scores": [18.4, 7.2]}
    reference = {"plan": "18x1.00", "sampler": "dpmpp_2m, logsnr grid", "gflops": 10.8, "latency_ms": 7.4}
    judges = [
        {"features": "pixels", "score": 18.3, "reference": 18.1, "difference": 0.2, "interval": [-0.1, 0.5]},
        {"features": "random", "score": 7.1, "reference": 7.0, "difference": 0.1, "interval": [0.0, 0.2]},
    ]
    claim = {"holds": True, "plan": point.plan, "margin": 0.05, "judges": judges, "flops_saved": 0.414}
    claim |= {"flops_saved_against_best_full_width": 0.12, "latency_saved": 0.3, "seeds": 10, "images": 1024}
    claim |= {"reference": reference | {"scores": [18.1, 7.0]}, "full": own, "trial": int(point.trial)}
    claim |= {"gflops": point.gflops, "more_may_help": False, "level": 0.975, "looks": [5, 10]}
    claim["best_full_width"] = reference | {"plan": "9x1.00", "gflops": 5.4, "scores": [18.2, 7.0]}
    return claim | {"disagreements": {"judges": ["pixels", "random"], "pairs": 0, "examples": []}}


def make_baselines(steps: int) -> pd.DataFrame:
    plans = [("uniform", np.full(steps, width)) for width in WIDTHS]
    for method, share in (("one_cut", 0.4), ("two_cut", 0.3), ("monotone", 0.55)):
        for early in (0.25, 0.5):
            cut = int(share * steps)
            plans.append((method, np.repeat([early, 1.0], [cut, steps - cut])))
    plans += [("gap", np.repeat([0.75, 1.0], [steps // 2, steps - steps // 2]))]
    plans += [("fewer_steps", np.ones(count)) for count in (steps // 2, 3 * steps // 4)]
    plans += [("random", random_plan(np.random.default_rng(seed), steps)) for seed in range(6)]
    plans += [("ddsm", random_plan(np.random.default_rng(seed), steps)) for seed in range(10, 13)]
    rows = [trial_row(index, plan, method, 0) | {"method": method} for index, (method, plan) in enumerate(plans)]
    baselines = pd.DataFrame(rows)
    baselines.loc[baselines.method == "fewer_steps", "fid"] += [9.0, 3.0]
    return baselines


def make_methods() -> pd.DataFrame:
    methods = ["search", "two_cut", "one_cut", "monotone", "uniform", "random"]
    shares = [0.991, 0.973, 0.95, 0.965, 0.88, 0.93]
    frame = pd.DataFrame({"method": methods, "evaluations": 120, "share": shares})
    return frame.assign(hypervolume=frame.share * 520, network_gflops=1e6)


def make_versus(front: pd.DataFrame) -> pd.DataFrame:
    versus = front[["trial", "gflops", "fid"]].assign(baseline_method="two_cut", baseline_plan="8x0.50 12x1.00")
    return versus.assign(baseline_gflops=versus.gflops * 0.99, baseline_fid=versus.fid + 0.5)


def make_progress(trials: pd.DataFrame) -> pd.DataFrame:
    count = np.arange(1, len(trials) + 1)
    frame = pd.DataFrame({"evaluation": count, "generation": trials.generation, "front_size": 3, "best_fid": 18.0})
    return frame.assign(
        hypervolume=520 * (1 - np.exp(-count / 25)), network_gflops=20000.0 * count, seconds=30.0 * count
    )


def make_proxies(trials: pd.DataFrame) -> pd.DataFrame:
    scored = trials[trials.state == "complete"][["trial", "fid"]].rename(columns={"fid": "score"})
    noise = np.random.default_rng(3).normal(0, 1.5, len(scored))
    paired = scored.assign(proxy="paired", score=(scored.score + noise) / 50)
    gap = scored.assign(proxy="gap", score=(scored.score + 3 * noise[::-1]) / 100)
    return pd.concat([scored.assign(proxy="fid"), paired, gap])


def make_gap(steps: int) -> pd.DataFrame:
    rows = [(s + 1, 999.0 - s, w, (1 - w) * (s + 1) / 100) for s in range(steps) for w in WIDTHS]
    return pd.DataFrame(rows, columns=["step", "time", "width", "gap"])


def make_sensitivity(steps: int) -> pd.DataFrame:
    rows = [(s + 1, s + 2, w, 1 + (1 - w) * s / steps, 9) for s in range(0, steps, 2) for w in WIDTHS]
    return pd.DataFrame(rows, columns=["first_step", "last_step", "width", "factor", "plans"])


def write_images(folder: Path) -> None:
    from matplotlib.image import imsave

    folder.mkdir()
    rows, columns = np.mgrid[0:256, 0:512]
    index = []
    for name, period in (("full", 32), ("knee", 31), ("cheapest", 27)):
        imsave(folder / f"{name}.png", np.stack([rows % period, columns % period, (rows + columns) % 64], axis=-1) / 64)
        index.append({"file": f"{name}.png", "title": name, "plan": "20x1.00", "gflops": 1.2, "fid": 30.1})
    (folder / "index.json").write_text(json.dumps(index))


def write_search(
    directory: Path,
    name: str = "shapes-20",
    count: int = 120,
    generations: int = 6,
    steps: int = 20,
    confirmed: bool = True,
) -> Path:
    """Every file of a search directory."""
    directory.mkdir(parents=True, exist_ok=True)
    trials = make_trials(count, generations, steps)
    front = make_front(trials, confirmed)
    full = {"gflops": gflops_of(np.ones(steps)), "fid": 18.0, "latency_ms": FULL_MS}
    tables = {"trials": trials, "front": front, "baselines": make_baselines(steps), "methods": make_methods()}
    tables |= {"versus": make_versus(front), "progress": make_progress(trials), "proxies": make_proxies(trials)}
    tables |= {"gap": make_gap(steps), "sensitivity": make_sensitivity(steps)}
    if confirmed:
        tables["confirm"] = make_confirm(front, full)
    for table, frame in tables.items():
        frame.to_parquet(directory / f"{table}.parquet")
    (directory / "search.json").write_text(json.dumps(make_facts(name, full, front, confirmed)))
    (directory / "settings.yaml").write_text("name: <b>shapes</b>\nbudget:\n  evaluations: 120\n")
    write_images(directory / "images")
    return directory


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a confirmed search with every file, which is read and not written to."""
    return write_search(tmp_path_factory.mktemp("written") / "search")


@pytest.fixture
def search(written: Path, tmp_path: Path) -> Path:
    """Return a copy of that search to write to."""
    return Path(shutil.copytree(written, tmp_path / "search"))


@pytest.fixture
def make_search(written: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a search directory with the given folder name and settings."""

    def make(folder: str, **settings: Any) -> Path:
        place = tmp_path / folder
        return write_search(place, **settings) if settings else Path(shutil.copytree(written, place))

    return make
