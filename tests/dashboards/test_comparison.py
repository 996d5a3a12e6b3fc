"""Several searches side by side: attainment and hypervolume in closed form, and the sections of the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stepfront.dashboards.comparison import comparable_groups, parents_section, unlike
from stepfront.dashboards.differing_settings import differing_settings
from stepfront.dashboards.figures import attainment_data, attainment_figure, hypervolume_shares, relative_data
from stepfront.dashboards.html.page import MOST_BYTES
from stepfront.dashboards.report import write_comparison, write_report
from stepfront.search.pareto import hypervolume
from stepfront.tables.search_tables import read_tables


def front(*points: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(points, columns=["gflops", "fid"])


def test_attainment_counts_how_many_searches_reach_a_quality_for_the_cost() -> None:
    data = attainment_data([front((1, 9), (3, 4)), front((2, 7)), front((1, 8), (2, 5), (3, 3))])
    assert list(data["gflops"]) == [1, 2, 3]
    assert list(data["one"]) == [8, 5, 3]
    assert list(data["half"]) == [9, 7, 4]
    assert np.isnan(data["all"][0])
    assert list(data["all"][1:]) == [9, 7]


def test_attainment_of_one_search_is_its_front() -> None:
    only = front((1, 9), (2, 5), (4, 1))
    data = attainment_data([only])
    for name in ("one", "half", "all"):
        np.testing.assert_array_equal(data[name], only["fid"])


def test_half_of_two_searches_is_not_drawn_as_a_third_line() -> None:
    both = [front((1, 9)), front((2, 5))]
    assert [t.name for t in attainment_figure(attainment_data(both), 2).data] == ["at least one search", "every search"]


@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_shares_agree_with_an_independent_computation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fronts = [pd.DataFrame(rng.uniform(1, 5, (12, 2)), columns=["gflops", "fid"]) for _ in range(3)]
    everything = pd.concat(fronts).to_numpy()
    reference = 1.05 * everything.max(axis=0)
    whole = hypervolume(everything, list(reference))
    expected = [hypervolume(own.to_numpy(), list(reference)) / whole for own in fronts]
    assert hypervolume_shares(fronts) == pytest.approx(expected)


def test_relative_fronts_are_in_units_of_their_own_full_width(make_search: Callable[..., Path]) -> None:
    tables = read_tables(make_search("a"))
    (relative,) = relative_data([tables]).values()
    np.testing.assert_allclose(relative.gflops * tables.full.gflops, tables.front.gflops)
    np.testing.assert_allclose(relative.fid * tables.full.fid, tables.front.fid)


def change_facts(directory: Path, **facts: object) -> Path:
    path = directory / "search.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    return directory


def named_sections(page: Path) -> list[str]:
    return re.findall(r'<section id="([a-z]+)"', page.read_text(encoding="utf-8"))


def test_searches_alike_are_compared_by_what_they_attain(make_search: Callable[..., Path], tmp_path: Path) -> None:
    page = write_comparison([make_search("a"), make_search("b", count=60)], tmp_path / "compared.html")
    assert named_sections(page) == ["searches", "settings", "fronts", "attainment", "plans"]
    assert page.stat().st_size < MOST_BYTES


def test_searches_on_other_data_are_compared_against_their_own_full_width(
    make_search: Callable[..., Path], tmp_path: Path
) -> None:
    other = change_facts(make_search("b"), dataset="faces", full={"gflops": 30.0, "fid": 40.0, "latency_ms": 1.0})
    page = write_comparison([make_search("a"), other], tmp_path / "compared.html")
    assert named_sections(page) == ["searches", "settings", "fronts", "relative", "plans"]
    assert "hypervolume</th>" not in page.read_text(encoding="utf-8")


def figures_of(page: Path) -> dict[str, dict[str, object]]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json" id="figure-([a-z0-9-]+)-data">(.*?)</script>', text)
    return {name: json.loads(figure) for name, figure in found}


def test_fids_that_cannot_be_compared_never_share_an_axis(make_search: Callable[..., Path], tmp_path: Path) -> None:
    other = change_facts(make_search("c"), features="inception")
    directories = [make_search("a"), other, make_search("b")]
    page = write_comparison(directories, tmp_path / "compared.html")
    figures = figures_of(page)
    drawn = {name: [trace["name"] for trace in figures[name]["data"]] for name in figures if "fronts" in name}  # type: ignore[index,attr-defined]
    assert drawn == {"fronts-0": ["a", "b"], "fronts-1": ["c"]}
    assert not {"attainment", "relative"} & set(figures)
    captions = re.findall(r"<figcaption>(.*?) Lower left", page.read_text(encoding="utf-8"))
    assert captions == ["a, b.", "c."], "a figure of one line has no legend"


def test_networks_of_one_name_that_differ_keep_fids_apart(make_search: Callable[..., Path]) -> None:
    a, b, c, unknown = (read_tables(make_search(name)) for name in "abcd")
    for tables, digest in ((a, "one"), (b, "another"), (c, "one")):  # such as those of two seeds
        tables.facts["features_digest"] = digest
    assert unlike([a, b]) == "features"
    assert comparable_groups([a, b, c]) == [[a, c], [b]]
    assert unlike([a, unknown]) == "", "searches of older versions do not know their network"
    assert comparable_groups([unknown, a, b]) == [[unknown, a], [b]]


def test_the_settings_in_which_searches_differ_are_shown(make_search: Callable[..., Path], tmp_path: Path) -> None:
    directories = [make_search("a"), make_search("b"), make_search("c")]
    texts = ("sampler: {steps: 10, solver: ddim}", "sampler: {steps: 20, solver: ddim}", "a: [")
    for directory, text in zip(directories, texts, strict=True):
        (directory / "settings.yaml").write_text(f"name: {directory.name}\ndirectory: runs\n{text}\n")
    found = differing_settings([read_tables(directory) for directory in directories[:2]])
    assert found == {"sampler.steps": [10, 20]}
    page = write_comparison(directories, tmp_path / "compared.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="settings">') :].partition("</section>")[0]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", section)
    assert cells == ["sampler.steps", "10", "20", "–", "sampler.solver", "ddim", "ddim", "–"]
    same = write_comparison([directories[0]] * 2, tmp_path / "same.html").read_text(encoding="utf-8")
    assert "All settings of these searches are equal." in same


def test_a_search_from_another_shows_both_fronts(make_search: Callable[..., Path], tmp_path: Path) -> None:
    parent = make_search("parent")
    child = change_facts(make_search("child"), parent_searches=[str(parent), str(tmp_path / "gone")])
    page = write_report(child).read_text(encoding="utf-8")
    section = page[page.index('<section id="parents">') :]
    section = section[: section.index("</section>")]
    assert "parent" in section
    change_facts(child, parent_searches=[str(tmp_path / "gone")])
    assert parents_section(read_tables(child)) == ""
    assert "parents" not in named_sections(write_report(child))


def test_a_search_from_others_says_what_it_took_of_each(make_search: Callable[..., Path], tmp_path: Path) -> None:
    """Also where their tables are missing: plans that came from their fronts, and the weights of their models."""
    child = change_facts(
        make_search("child"),
        parent_searches=[str(tmp_path / "gone")],
        earlier=[
            {
                "search": "digits",
                "name": "digits",
                "trials": 40,
                "usable": 38,
                "after": [4, 8, 9],
                "weight": [0.5, 0.25, 0.125],
            },
            {
                "search": "few",
                "name": "few",
                "trials": 5,
                "usable": 5,
                "after": [],
                "weight": [],
                "lacking": "fewer than 12 trials",
            },
        ],
    )
    tables = read_tables(child)
    origins = ["front:runs/digits/search", "uniform", "front:runs/few/search"]
    origins += ["climb"] * (len(tables.trials) - len(origins))
    trials = tables.trials.assign(origin=origins)
    section = parents_section(replace(tables, trials=trials))
    assert f"2 of this search's {len(trials)} trials came from their fronts" in unescape(section)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", section)
    assert cells == ["digits", "40", "38", "0.50", "0.25", "0.12", "few", "5", "its front alone", *["–"] * 3]
