"""The report's section of a second stage: losses and costs are those of the table, and without one it is left out."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from stepfront.dashboards.report import write_report
from stepfront.dashboards.second_stage import second_stage_section
from stepfront.tables.adaptation import adaptation_note, adaptation_sentence, change_by_width, group_costs
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import ADAPTATION


def stage(factors: tuple[float, float] = (math.nan, math.nan), seconds: float = 30.0) -> pd.DataFrame:
    """Return two groups of two widths."""
    losses = [[(0.4, 0.3), (0.2, 0.2)], [(0.04, 0.02), (0.02, 0.021)]]
    rows = []
    for number, (times, factor) in enumerate(zip([(0, 302), (303, 999)], factors, strict=True)):
        group = {"group": number + 1, "first_time": times[0], "last_time": times[1]}
        cost = {"factor": factor, "steps": 500, "images": 32000, "gflops": 1250.0 * (number + 1), "seconds": seconds}
        for width, (before, after) in zip([0.5, 1.0], losses[number], strict=True):
            rows.append(group | {"width": width, "loss_before": before, "loss_after": after} | cost)
    return pd.DataFrame(rows)


def shown(table: pd.DataFrame) -> Any:
    return second_stage_section(SimpleNamespace(adaptation=table))  # type: ignore[arg-type]


def cells(section: str) -> list[list[str]]:
    """Return the cells of each row of the section's tables."""
    lines = [line for line in section.replace("<tr", "\n<tr").splitlines() if "<td" in line]
    return [[cell.partition(">")[2].partition("<")[0] for cell in line.split("<td")[1:]] for line in lines]


def test_the_section_has_the_values_of_the_table() -> None:
    found = cells(shown(stage()))
    assert found == [
        ["1", "0 to 302", "0.5", "0.4000", "0.3000", "-25.0%"],
        ["1", "0 to 302", "1", "0.2000", "0.2000", "+0.0%"],
        ["2", "303 to 999", "0.5", "0.0400", "0.0200", "-50.0%"],
        ["2", "303 to 999", "1", "0.0200", "0.0210", "+5.0%"],
        ["1", "0 to 302", "500", "32,000", "1.25", "30 s"],
        ["2", "303 to 999", "500", "32,000", "2.50", "30 s"],
    ]
    assert change_by_width(stage()) == pytest.approx({0.5: -0.375, 1.0: 0.025})
    assert group_costs(stage())["gflops"].tolist() == [1250.0, 2500.0]


def test_sentences_add_up_groups_and_leave_out_what_is_unknown() -> None:
    assert adaptation_sentence(stage()) == (
        "A second stage trained 2 groups of times: held-out loss -37.5% at width 0.5, +2.5% at width 1, mean over "
        "the groups. It took 3.75 TFLOPs, 64,000 images, and 60 seconds of training steps."
    )
    unknown = stage(factors=(0.5, 0.25), seconds=math.nan)
    assert "groups of times and merged them:" in adaptation_sentence(unknown)
    assert "seconds" not in adaptation_sentence(unknown)
    assert [row[-2:] for row in cells(shown(unknown))[4:]] == [["–", "0.5"], ["–", "0.25"]]
    assert "| 2 | 303-999 | 0.5 | 0.0400 | 0.0200 | -50.0% |" in adaptation_note(stage())


def test_a_report_has_the_section_where_the_search_has_the_table(search: Path) -> None:
    assert 'id="second-stage"' not in write_report(search).read_text(encoding="utf-8")
    write_table(stage(), search / ADAPTATION)
    page = write_report(search).read_text(encoding="utf-8")
    assert page.index('id="proxies"') > page.index('id="second-stage"') > page.index('id="images"')
    assert "-37.5% at width 0.5" in page
