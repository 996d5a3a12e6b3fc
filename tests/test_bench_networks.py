"""The benchmark of network families: equal training FLOPs, and the section that it writes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.networks import (
    HEADING,
    SYSTEMS,
    System,
    parse,
    run_name,
    table_of,
    trainer_settings,
    training_flops,
    write_section,
)
from stepfront.trainers.config import DataSettings
from stepfront.trainers.inference.cost import WidthCost, count_width


def test_a_step_is_three_widths_forward_and_backward() -> None:
    costs = {width: WidthCost(width=width, macs=macs, parameters=1) for width, macs in ((0.5, 10), (0.75, 20), (1, 40))}
    assert training_flops(costs, batch=7) == 3 * 2 * 7 * (10 + 20 + 40)
    del costs[0.75]
    assert training_flops(costs, batch=7) == 3 * 2 * 7 * (10 + 40)


@pytest.mark.parametrize("system", [SYSTEMS["unet"], SYSTEMS["ode, 2 inner steps"], SYSTEMS["dit"]])
def test_systems_train_for_equal_flops(system: System) -> None:
    given = parse(["--size", "8", "--base", "8", "--gflops", "50", "--widths", "0.5", "1"])
    settings = trainer_settings(given, system, DataSettings(), seed=3)
    costs = {width: count_width(settings.network, 1, 8, width) for width in settings.network.widths}
    each = training_flops(costs, given.batch)
    assert abs(settings.training.steps * each - 50e9) <= each / 2
    assert settings.training.seed == 3


def test_seeds_can_be_added_to_a_run_and_other_options_begin_a_new_one() -> None:
    name = run_name(parse(["--seeds", "1"]))
    assert run_name(parse(["--seeds", "3", "--page", "other.md"])) == name
    assert run_name(parse(["--gflops", "50"])) != name


def test_the_section_is_replaced_and_has_the_spread_of_several_seeds(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\nText.\n\n{HEADING}\n\nOld.\n", encoding="utf-8")
    write_section(page, ["New."])
    assert page.read_text(encoding="utf-8") == f"# Title\n\nText.\n\n{HEADING}\n\nNew.\n"
    row = {"system": "unet", "width": 1.0, "training steps": 3, "parameters": 12345, "GFLOPs per call": 0.01}
    row |= {"ms per call": 0.5, "held-out loss": 0.1}
    table = table_of(pd.DataFrame([row | {"seed": 0, "FID": 10.0}, row | {"seed": 1, "FID": 12.0}]))
    assert table["FID"].tolist() == ["11 (10 to 12)"]
    assert table["parameters"].tolist() == ["12,345"]
