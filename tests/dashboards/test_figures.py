"""The numbers behind each figure, and that each drawing is made of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from stepfront.dashboards.figures import (
    attainment_data,
    attainment_figure,
    beyond,
    comparison_data,
    comparison_figure,
    front_data,
    front_figure,
    hypervolume_data,
    hypervolume_figure,
    latency_data,
    latency_figure,
    origins_data,
    origins_figure,
    plans_data,
    plans_figure,
    relative_data,
    save_front_picture,
)
from stepfront.dashboards.figures.front import non_dominated
from stepfront.dashboards.figures.picture import _draw
from stepfront.dashboards.figures.style import METHOD_MARKS, axis_type, decade_ticks
from stepfront.dashboards.score_figures.proxies import kendall_tau, proxies_data, proxy_figure
from stepfront.dashboards.sections.front import front_section
from stepfront.dashboards.sections.study import proxies_section
from stepfront.tables.schema import PROXY_NAMES
from stepfront.tables.search_tables import SearchTables, fid_name, read_tables


@pytest.fixture
def tables(search: Path) -> SearchTables:
    return read_tables(search)


def test_non_dominated_keeps_the_first_of_equals() -> None:
    trials = pd.DataFrame({"gflops": [3.0, 1.0, 2.0, 2.0, 1.0, 4.0], "fid": [5.0, 9.0, 7.0, 7.0, 8.0, 6.0]})
    assert non_dominated(trials).index.tolist() == [4, 2, 0]
    assert non_dominated(trials.assign(violation=[0, 0, 3.0, 0, 0.5, 0])).index.tolist() == [1, 3, 0]


def test_a_front_of_three_objectives_is_drawn_as_points(tables: SearchTables) -> None:
    rising = tables.front.assign(fid=tables.front.fid.to_numpy()[::-1])
    drawn = comparison_figure({"two": tables.front, "three": rising})
    assert [trace.mode for trace in drawn.data] == ["lines+markers", "markers"]
    lines = {}
    for front in (tables.front, rising):
        axes = Figure().add_subplot()
        _draw(axes, front_data(replace(tables, front=front)))
        lines[front is rising] = [line.get_drawstyle() for line in axes.lines].count("steps-post")
    assert lines == {False: 1, True: 0}


def test_the_moments_hold_every_trial_once_and_the_front_of_their_time(tables: SearchTables) -> None:
    data = front_data(tables)
    assert [moment.generation for moment in data.moments] == list(range(6))
    drawn = pd.concat([moment.trials for moment in data.moments])
    assert sorted([*drawn.trial, *tables.front.trial]) == sorted(tables.complete.trial)
    first = tables.complete[tables.complete.generation == 0]
    assert data.moments[0].front.trial.tolist() == non_dominated(first).trial.tolist()
    assert data.moments[-1].front is tables.front


def test_dominated_trials_are_thinned_and_counted(tables: SearchTables) -> None:
    data = front_data(tables, most_trials=10)
    assert data.drawn == sum(len(moment.trials) for moment in data.moments) == 10
    assert data.dominated == 119 - len(tables.front)


def test_many_generations_become_thirty_moments(make_search: Callable[..., Path]) -> None:
    data = front_data(read_tables(make_search("long", count=200, generations=90)))
    assert len(data.moments) == 30
    assert data.moments[-1].generation == 89


def test_each_step_of_the_slider_shows_one_front_and_the_trials_so_far(tables: SearchTables) -> None:
    figure = front_figure(front_data(tables))
    steps = figure.layout.sliders[0].steps
    assert len(steps) == 6
    for generation, step in enumerate(steps):
        shown = [trace for trace, seen in zip(figure.data, step.args[0]["visible"], strict=True) if seen]
        names = [trace.name for trace in shown]
        assert names.count("other trials") == generation + 1
        assert names.count("front") == 1
        assert names.count("full width") == 1
        assert ("confirmed on held-out noise seeds" in names) == (generation == 5)


def test_the_front_is_a_step_line_with_its_intervals(tables: SearchTables) -> None:
    figure = front_figure(front_data(tables))
    front = [trace for trace in figure.data if trace.name == "front"][-1]
    assert front.line.shape == "hv"
    np.testing.assert_allclose(front.x, tables.front.gflops, rtol=1e-6)
    confirmed = next(trace for trace in figure.data if trace.name == "confirmed on held-out noise seeds")
    np.testing.assert_allclose(confirmed.error_y.array, 0.4)
    np.testing.assert_allclose(confirmed.error_y.arrayminus, 0.5)
    assert list(confirmed.marker.symbol).count("diamond-open") == 1


def test_the_axis_is_logarithmic_beyond_a_factor_of_eight(tables: SearchTables) -> None:
    assert axis_type([1.0, 8.0]) == "linear"
    assert axis_type([1.0, 8.1, np.nan]) == "log"
    assert axis_type([0.0, 9.0]) == "linear"
    assert axis_type([]) == "linear"
    assert decade_ticks([0.7, 12.0]) == pytest.approx([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50])
    assert front_figure(front_data(tables)).layout.xaxis.type == "log"


def test_no_two_methods_share_a_mark() -> None:
    assert len({(mark.colour, mark.symbol) for mark in METHOD_MARKS.values()}) == len(METHOD_MARKS)
    assert len({mark.marker for mark in METHOD_MARKS.values()}) == len(METHOD_MARKS)


def test_plans_are_rows_with_the_cheapest_first(tables: SearchTables) -> None:
    front = tables.front.iloc[:2].assign(widths=[np.array([0.5, 0.0, 1.0]), np.array([0.25])])
    data = plans_data(replace(tables, front=front))
    assert plans_figure(data).layout.meta["trials"] == data.trials == front.trial.tolist()
    np.testing.assert_array_equal(data.widths, [[0.5, 0.0, 1.0], [0.25, np.nan, np.nan]])
    assert data.levels == [0.25, 0.5, 1.0]
    assert data.labels[0].endswith(f"/ {front.fid.iloc[0]:.2f}")


def test_plans_beyond_the_most_cells_are_thinned(tables: SearchTables) -> None:
    widths = [np.full(20_000, 0.5)] * len(tables.front)
    data = plans_data(replace(tables, front=tables.front.assign(widths=widths)))
    assert data.widths.shape == (5, 20_000)


def test_the_heat_map_names_each_width_and_skip(tables: SearchTables) -> None:
    front = tables.front.iloc[:1].assign(widths=[np.array([0.5, 0.0, 1.0])])
    figure = plans_figure(plans_data(replace(tables, front=front)))
    assert [trace.name for trace in figure.data if trace.name] == ["skip", "0.5", "1"]
    # Hard edges half-way between 0, 0.5 and 1: two entries of the scale at each.
    assert [edge for edge, _ in figure.data[0].colorscale] == [0.0, 0.25, 0.25, 0.75, 0.75, 1.0]


def test_the_heat_map_shows_and_explains_the_marks_of_steps(tables: SearchTables) -> None:
    plan = "2x1.00g1.5 1x1.00rg3 1x0.50d2u 1xskip 1x1.00r"
    front = tables.front.iloc[:1].assign(widths=[np.array([1.0, 1.0, 1.0, 0.5, 0.0, 1.0])], plan=[plan])
    data = plans_data(replace(tables, front=front))
    assert data.marks == ((0, 0, "g1.5"), (0, 1, "g1.5"), (0, 2, "rg3"), (0, 3, "d2u"), (0, 5, "r"))
    explained = [trace.name for trace in plans_figure(data).data if trace.name and ":" in trace.name]
    assert explained == [
        *("d2: depth 2", "g1.5: guidance of scale 1.5", "g3: guidance of scale 3", "r: reuses features", "u: unguided")
    ]


def test_hypervolume_has_a_line_a_baseline_method(tables: SearchTables) -> None:
    data = hypervolume_data(tables)
    assert list(data.methods) == ["two_cut", "monotone", "one_cut", "random", "uniform"]
    assert data.unit == "PFLOPs"
    assert data.spent[-1] == pytest.approx(120 * 20000 / 1e6)
    assert data.hypervolume[-1] == pytest.approx(520 * (1 - np.exp(-120 / 25)))
    assert 0 <= data.floor < min(data.methods.values())
    assert len(hypervolume_figure(data).data) == 2 * (1 + 5)


def test_origins_count_failed_trials_too(tables: SearchTables) -> None:
    data = origins_data(tables)
    assert sum(data.made) == 120
    assert sum(data.on_front) == len(tables.front)
    assert data.made == sorted(data.made, reverse=True)
    assert dict(zip(data.origins, data.made, strict=True))["uniform"] == 4
    assert len(origins_figure(data).data) == 2


@pytest.mark.parametrize(
    ("other", "tau"),
    [
        ([1, 2, 3, 4], 1.0),
        ([4, 3, 2, 1], -1.0),
        ([1, 2, 4, 3], 4 / 6),  # five of six pairs agree
        ([1, 1, 2, 2], 4 / np.sqrt(6 * 4)),  # two of six pairs are tied
    ],
)
def test_kendall_tau_in_closed_form(other: list[float], tau: float) -> None:
    assert kendall_tau(np.arange(4), np.array(other, dtype=float)) == pytest.approx(tau)


def test_proxies_are_paired_by_trial_and_the_stated_tau_is_taken(search: Path) -> None:
    facts = json.loads((search / "search.json").read_text())
    facts["proxy_tau"] = [{"lower": "gap", "upper": "fid", "tau": 0.31, "n": 42}]
    (search / "search.json").write_text(json.dumps(facts))
    pairs = {(pair.lower, pair.upper): pair for pair in proxies_data(read_tables(search))}
    assert list(pairs) == [("gap", "paired"), ("gap", "fid"), ("paired", "fid")]
    assert (pairs["gap", "fid"].tau, pairs["gap", "fid"].count) == (0.31, 42)
    assert pairs["paired", "fid"].count == 119
    assert "gap and fid: τ = 0.31 over 42 trials" in proxies_section(read_tables(search))


def test_a_search_whose_every_trial_is_on_the_front_is_drawn(search: Path) -> None:
    tables = read_tables(search)  # with several objectives that is common
    data = front_data(replace(tables, trials=tables.trials[tables.trials["trial"].isin(tables.front["trial"])]))
    assert (data.dominated, data.drawn) == (0, 0)
    assert len(front_figure(data).data) > 1


def test_a_proxy_that_is_zero_up_to_rounding_is_drawn_as_zero(search: Path) -> None:
    path = search / "proxies.parquet"
    scores = pd.read_parquet(path)
    full = (scores["proxy"] == "paired") & (scores["trial"] == scores["trial"].max())
    scores.loc[full, "score"] = 1e-13  # full width beside itself, on an engine that rounds otherwise
    scores.to_parquet(path)
    pair = next(pair for pair in proxies_data(read_tables(search)) if (pair.lower, pair.upper) == ("paired", "fid"))
    assert pair.low.min() == 0
    assert proxy_figure(pair).layout.xaxis.type == "linear"


@pytest.mark.parametrize("outlier", [1e3, 1e7])
def test_an_outlier_does_not_flatten_the_front(search: Path, outlier: float) -> None:
    trials = pd.read_parquet(search / "trials.parquet")
    worst = trials["fid"].idxmax()
    assert worst not in set(read_tables(search).front["trial"])
    trials.loc[worst, "fid"] = outlier
    trials.to_parquet(search / "trials.parquet")
    data = front_data(read_tables(search))
    assert beyond(data) == 1
    axis = front_figure(data).layout.yaxis
    high = 10 ** axis.range[1] if axis.type == "log" else axis.range[1]
    assert read_tables(search).front["fid"].max() < high < outlier
    assert "1 point with a far higher FID lies above" in front_section(read_tables(search))


def test_every_proxy_of_the_schema_is_drawn_and_a_users_own_too(search: Path) -> None:
    path = search / "proxies.parquet"
    fid = pd.read_parquet(path).query("proxy == 'fid'")
    names = [*reversed(PROXY_NAMES), "mine", "fid"]
    pd.concat([fid.assign(proxy=name) for name in names]).to_parquet(path)
    pairs = [(pair.lower, pair.upper) for pair in proxies_data(read_tables(search)) if pair.upper == "fid"]
    assert pairs == [(name, "fid") for name in (*PROXY_NAMES, "mine")]


def test_latency_is_a_share_of_full_width(tables: SearchTables) -> None:
    data = latency_data(tables)
    # The synthetic machine spends 30% of full width's time whatever the plan.
    np.testing.assert_allclose(data.front[:, 1], 0.3 + 0.7 * data.front[:, 0])
    np.testing.assert_allclose(data.front[-1], [1.0, 1.0])
    assert latency_figure(data).data[0].name == "time follows FLOPs"
    unmeasured = replace(tables, facts={**tables.facts, "full": {"gflops": 12.0}})
    assert latency_data(unmeasured).empty


def test_searches_are_named_by_their_paths(make_search: Callable[..., Path]) -> None:
    searches = [read_tables(make_search(folder, name="x")) for folder in ("a/x/search", "b/x/search")]
    data = comparison_data([searches[0], searches[1], searches[0]])
    assert list(data) == ["a/x (1)", "b/x", "a/x (3)"]
    assert list(comparison_data(searches[:1])) == ["x"]
    assert [trace.name for trace in comparison_figure(data).data] == list(data)


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_picture_is_of_the_kind_its_suffix_says(
    tables: SearchTables, tmp_path: Path, suffix: str, start: bytes
) -> None:
    path = save_front_picture(tables, tmp_path / f"front{suffix}")
    assert path.read_bytes().startswith(start)
    assert [file.name for file in tmp_path.glob("front*")] == [path.name]
    again = save_front_picture(tables, tmp_path / f"again{suffix}")
    assert again.read_bytes() == path.read_bytes()


def test_another_suffix_is_refused(tables: SearchTables, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png, \.svg"):
        save_front_picture(tables, tmp_path / "front.gif")


def test_every_figure_says_of_which_features_its_fid_is(tables: SearchTables) -> None:
    fid = "FID (pixels)"
    fronts = comparison_data([tables, tables])
    figures = {
        "front": front_figure(front_data(tables)),
        "plans": plans_figure(plans_data(tables)),
        "hypervolume": hypervolume_figure(hypervolume_data(tables)),
        "origins": origins_figure(origins_data(tables)),
        "proxies": proxy_figure(proxies_data(tables)[-1]),
        "latency": latency_figure(latency_data(tables)),
        "comparison": comparison_figure(fronts, fid_name=fid_name([tables, tables])),
        "relative": comparison_figure(relative_data([tables, tables]), relative=True, fid_name=fid_name([tables])),
        "attainment": attainment_figure(attainment_data(list(fronts.values())), 2, fid_name([tables])),
    }
    assert {name for name, figure in figures.items() if fid not in str(figure.layout) + str(figure.data)} == set()
    other = replace(tables, facts=tables.facts | {"features": "inception"})
    assert fid_name([tables, other, tables]) == "FID (pixels, inception)"
    assert fid_name([replace(tables, facts={})]) == "FID"
