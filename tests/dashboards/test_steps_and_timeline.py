"""Which step matters and when each worker did what: the numbers behind the figures, and what the report says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stepfront.dashboards.figures.steps import (
    gap_data,
    gap_figure,
    model_check,
    sensitivity_data,
    sensitivity_figure,
)
from stepfront.dashboards.figures.timeline import timeline_data, timeline_figure
from stepfront.dashboards.sections.steps import steps_section
from stepfront.dashboards.sections.study import timeline_section
from stepfront.tables.search_tables import SearchTables, read_tables


@pytest.fixture
def tables(search: Path) -> SearchTables:
    return read_tables(search)


def test_the_gap_is_a_line_per_narrow_width(tables: SearchTables) -> None:
    lines = gap_data(tables)
    assert [line.width for line in lines] == [0.25, 0.5, 0.75]
    np.testing.assert_array_equal(lines[0].x, np.arange(1, 21))
    np.testing.assert_allclose(lines[0].y, 0.75 * np.arange(1, 21) / 100)
    figure = gap_figure(lines)
    assert [trace.name for trace in figure.data] == ["0.25", "0.5", "0.75"]
    assert figure.layout.yaxis.minexponent == 5  # 0.0005, not 500µ


def test_a_sensitivity_is_a_flat_piece_per_stretch_in_percent(tables: SearchTables) -> None:
    line = sensitivity_data(tables)[1]
    assert line.width == 0.5
    np.testing.assert_array_equal(line.x[:5], [0.5, 2.5, 2.5, 2.5, 4.5])
    np.testing.assert_allclose(line.y[3:5], 100 * 0.5 * 2 / 20)
    assert np.isnan(line.y[2::3]).all()  # no line from one stretch to the next
    assert "FID (pixels)" in sensitivity_figure([line]).layout.yaxis.title.text


def model_scores(tables: SearchTables, factor: float) -> pd.DataFrame:
    """Return the table of proxies with a model whose leave-one-out predictions miss log FID by +- log(factor)."""
    fid = tables.proxies[tables.proxies["proxy"] == "fid"].reset_index(drop=True)
    signs = np.where(np.arange(len(fid)) % 2, 1.0, -1.0)
    return pd.concat([fid, fid.assign(proxy="model", score=fid["score"] * factor**signs)], ignore_index=True)


def test_the_model_is_checked_by_leaving_each_trial_out(tables: SearchTables) -> None:
    facts = tables.facts | {"proxy_tau": [{"lower": "model", "upper": "fid", "tau": 0.8, "n": 119}]}
    checked = replace(tables, facts=facts, proxies=model_scores(tables, 1.05))
    fid = np.log(tables.complete["fid"].to_numpy())
    check = model_check(checked)
    assert check is not None
    assert check.explained == pytest.approx(1 - np.log(1.05) ** 2 / fid.var())
    assert (check.tau, check.trials) == (0.8, len(fid))
    text = steps_section(checked)
    assert (
        f"explain {100 * check.explained:.0f}% of the variance of log FID over 119 trials, Kendall&#x27;s τ 0.80."
        in text
    )
    assert "too little to rely on" not in text
    assert "too little to rely on" in steps_section(replace(checked, proxies=model_scores(tables, 4.0)))
    assert "could not be checked" in steps_section(replace(tables, proxies=tables.proxies.iloc[:0]))


def test_without_either_table_there_is_no_section(tables: SearchTables) -> None:
    nothing = replace(tables, gap=tables.gap.iloc[:0], sensitivity=tables.sensitivity.iloc[:0])
    assert steps_section(nothing) == ""
    assert "figure-gap" not in steps_section(replace(tables, gap=tables.gap.iloc[:0]))


def test_a_trial_is_a_bar_from_its_beginning_to_its_end(tables: SearchTables) -> None:
    data = timeline_data(tables)
    assert data.workers == ["w0", "w1"]
    assert data.unit == "seconds"
    assert data.busy == pytest.approx(118 * 1.5 / (60 * 1.5 * 2), rel=0.02)
    row = data.trials[data.trials["trial"] == 7].iloc[0]
    assert (row["start"], row["length"], row["lane"]) == (10 + 1.5 * 3, 1.5, 1)
    assert set(data.trials[data.trials["kind"] == "front"]["trial"]) == set(tables.front["trial"])
    (failed,) = data.trials[data.trials["kind"] == "failed"].itertuples()
    assert (failed.trial, failed.length) == (5, 0.0)
    figure = timeline_figure(data)
    assert [trace.name for trace in figure.data] == ["complete", "complete, on the front", "failed"]
    assert sum(len(trace.customdata) for trace in figure.data) == len(tables.trials)
    assert figure.layout.xaxis.range[0] > 9  # ten seconds of preparation are not drawn


def test_a_search_without_times_has_no_time_line(tables: SearchTables) -> None:
    assert timeline_section(replace(tables, trials=tables.trials.drop(columns="elapsed"))) == ""
    hours = tables.trials.assign(elapsed=tables.trials["elapsed"] * 1000, worker="")
    data = timeline_data(replace(tables, trials=hours))
    assert (data.unit, data.workers) == ("hours", ["unknown"])
