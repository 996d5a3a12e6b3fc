"""Check which changes of a search's settings make its space larger, and that others are refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepfront.errors import InputError
from stepfront.search.config import save_settings
from stepfront.search.extending.extended_settings import extended_settings
from tests.search.conftest import tiny_settings


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            "evaluation.images=64",
            "extend can't change evaluation.images.*possible: --trials, --minutes, --tflops, sampler.steps",
        ),
        ("sampler.solver=unipc_2", "extend can't change sampler.solver"),
        ("search_seed=3", "extend can't change search_seed"),
        (
            "budget.trials=9",
            "extend can't change budget.trials; possible: --trials, --minutes, --tflops, sampler.steps, ",
        ),
        ("features.name=random", "extend can't change features.name"),
        (
            "sampler.steps=5",
            "is fewer than the 6 that this search has; possible: as many or more",
        ),
        (
            "space.variants=[0.25, 1.0]",
            "lacks 0.50, which this search has; possible: all of 0.25, 0.50, 1.00, and",
        ),
        ("space.variants=[0.25, 0.5, 0.75, 1.0]", "--set: .*network.widths has no 0.75; possible: 0.25, 0.5, 1"),
        ("space.stage=9", "extend can't change space.stage"),
    ],
)
def test_what_makes_scores_incomparable_or_plans_fewer_is_refused(tmp_path: Path, change: str, reason: str) -> None:
    settings = tiny_settings(tmp_path)
    settings.search_directory.mkdir(parents=True)
    save_settings(settings, settings.search_directory / "settings.yaml")
    with pytest.raises(InputError, match=reason) as refused:
        extended_settings(settings.run_directory, 5, None, None, [change])
    assert "\n" not in str(refused.value)


def test_depths_that_would_be_lost_are_named(tmp_path: Path) -> None:
    network = ("network.family=ode", "network.multipliers=[1]", "network.widths=[0.5, 1.0]", "network.depths=[1, 2]")
    settings = tiny_settings(tmp_path, *network, "space.variants=[0.5, 0.5d1, 1.0, 1.0d1]")
    settings.search_directory.mkdir(parents=True)
    save_settings(settings, settings.search_directory / "settings.yaml")
    with pytest.raises(InputError, match=r"lacks 0\.50, 0\.50d1, 1\.00d1, which"):
        extended_settings(settings.run_directory, 5, None, None, ["space.variants=[1.0]"])
