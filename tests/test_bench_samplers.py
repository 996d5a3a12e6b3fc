"""The comparison of samplers: what compares with what, the order of its tasks, and a supernet measured in tiny form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.samplers.judges import few_pixels
from benchmarks.samplers.learnt_page import shares
from benchmarks.samplers.rows import all_pairs
from benchmarks.samplers.supernets import SUPERNETS, settings_of
from benchmarks.samplers.tables import HAND, closed_forms, over_supernets, relative
from benchmarks.samplers.tasks import measurements, preparations

ROOT = Path(__file__).parents[1]


def scores(pairs: list[str], steps: int, seeds: int, distance: float = 1.0) -> list[dict[str, object]]:
    return [
        {"plan": f"{steps}x1.00", "steps": steps, "sampler": pair, "seed": seed, "FD a": distance * (1 + number)}
        for seed in range(seeds)
        for number, pair in enumerate(pairs)
    ]


def test_only_what_has_equal_seeds_compares() -> None:
    everything = [f"{solver}, {grid}" for solver, grid in all_pairs()]
    table = pd.DataFrame(
        scores(everything, 5, 2)
        + scores(HAND, 5, 3)[2 * len(HAND) :]  # a third seed of the hand samplers alone
        + scores(HAND, 8, 2)[:-1]  # interrupted in the second seed
        + scores(HAND, 10, 1)[:-1]  # interrupted in the first
        + [{"plan": "2x0.50 3x1.00", "steps": 5, "sampler": HAND[0], "seed": 0, "FD a": 1.0}]
        + [{"plan": "5x1.00", "steps": 5, "sampler": "learnt solver", "seed": 0, "FD a": 1.0}]
    )
    kept = closed_forms(table)
    assert kept.groupby(["steps", "seed"]).size().to_dict() == {
        (5, 0): len(everything),
        (5, 1): len(everything),
        (8, 0): len(HAND),
    }


def test_the_relative_distance_is_the_geometric_mean_over_judges_and_supernets() -> None:
    table = pd.DataFrame(scores(HAND, 5, 1)).assign(**{"FD b": 4.0})
    found = relative(table)
    assert found[HAND[0], 5] == 1.0
    assert found[HAND[3], 5] == pytest.approx(2.0)  # 4 times by one judge, equal by the other
    ranked = over_supernets({"one": table, "two": table.assign(**{"FD b": 1.0})})
    assert list(ranked.index) == HAND
    assert ranked.loc[HAND[3], "all"] == pytest.approx(2.0)
    assert ranked.loc[HAND[5], "worst"] == pytest.approx(np.sqrt(6.0))


def test_a_share_is_the_best_learnt_of_the_best_hand_sampler() -> None:
    scored = pd.DataFrame({5: {HAND[0]: 4.0, HAND[1]: 2.0, "learnt times": 3.0, "learnt solver": 1.0}})
    assert shares(scored).to_dict() == {5: 0.5}


def test_every_plan_is_measured_once_and_learnt_ones_after_the_hand_samplers() -> None:
    tasks = list(measurements("digits"))
    assert len({task.file for task in tasks}) == len(tasks)
    assert [task.rank for task in tasks] == list(range(len(tasks)))
    hand = {task.plan for task in tasks if task.kind == "hand"}
    assert {"3x1.00", "50x1.00", "2x0.50 3x1.00"} <= hand
    assert {task.plan for task in tasks if task.kind == "learnt solver"} == hand - {"50x1.00"}
    assert all(task.prepares for task in preparations("digits"))


@pytest.mark.parametrize("name", SUPERNETS)
def test_the_supernets_have_the_settings_of_their_configs(name: str) -> None:
    settings = settings_of(name, Path("data"))
    assert settings.network.widths == (0.25, 0.5, 0.75, 1.0)
    assert settings.network.base == (32 if name == "cifar10-small" else 16)
    assert settings.training.steps >= 1500


def test_pixels_of_larger_images_are_means_of_squares() -> None:
    images = torch.arange(28.0 * 28).reshape(1, 1, 28, 28)
    assert few_pixels(images).shape == (1, 196)
    assert few_pixels(images)[0, 0] == pytest.approx((0 + 1 + 28 + 29) / 4 / 127.5 - 1)
    assert few_pixels(torch.zeros(2, 3, 32, 32)).shape == (2, 192)
    assert few_pixels(torch.zeros(2, 1, 8, 8)).shape == (2, 64)


def test_the_command_needs_neither_ray_nor_optuna_nor_mlflow() -> None:
    code = """
import sys
import benchmarks.samplers.__main__, benchmarks.samplers.tasks
print([name for name in sys.modules if name in ("ray", "optuna", "mlflow") or name.startswith("stepfront.search")])
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.stdout.strip() == "[]", ended.stderr
