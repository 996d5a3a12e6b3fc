"""What the pages promise: they load nothing, show what there is, and stay small."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from stepfront.checksums import begin_record
from stepfront.dashboards.html.page import MOST_BYTES
from stepfront.dashboards.report import write_comparison, write_report
from stepfront.dashboards.score_figures.judges import judges_data
from stepfront.dashboards.sections.images import fitting_png
from stepfront.errors import InputError
from stepfront.search.config import ScreenSettings
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.search_tables import read_tables

ROOT = Path(__file__).parents[2]
SECTIONS_OF: dict[str, set[str]] = {
    "baselines.parquet": set(),  # they are drawn into the front
    "methods.parquet": set(),  # the versus table is still there
    "versus.parquet": set(),
    "confirm.parquet": set(),
    "progress.parquet": {"hypervolume"},
    "proxies.parquet": {"proxies"},
    "gap.parquet": set(),  # the sensitivities are still there
    "sensitivity.parquet": set(),
    "images/index.json": {"images"},
    "settings.yaml": set(),
}
ALL_SECTIONS = [
    "figures",
    "front",
    "points",
    "plans",
    "steps",
    "images",
    "baselines",
    "hypervolume",
    "timeline",
    "origins",
    "proxies",
    "latency",
    "facts",
]


def own_text(page: Path) -> str:
    """Return the page without plotly.js, which is not ours."""
    return page.read_text(encoding="utf-8").replace(get_plotlyjs(), "")


def sections(page: Path) -> list[str]:
    return re.findall(r'<section id="(\w+)">', own_text(page))


def test_the_report_has_every_section_in_order_and_is_small(search: Path) -> None:
    page = write_report(search)
    assert page == search / "report.html"
    assert sections(page) == ALL_SECTIONS
    assert page.stat().st_size < MOST_BYTES
    assert page.read_text(encoding="utf-8").count("plotly.js v") == 1
    assert not list(search.glob("*.tmp"))


def test_nothing_is_loaded_from_elsewhere(search: Path) -> None:
    text = own_text(write_report(search))
    places = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)|url\(\s*["']?([^"')]*)|@import\s+(\S+)""", text)
    assert places
    for place in map("".join, places):
        assert place.startswith(("#", "data:"))
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in text
    assert "localStorage" not in text


NOTED = {"progress.parquet", "proxies.parquet"}
"""Tables that every search has: where one is missing, the section says so."""


@pytest.mark.parametrize("name", sorted(NOTED))
def test_a_table_that_is_missing_leaves_a_note(search: Path, name: str) -> None:
    assert "missing</strong>" not in write_report(search).read_text()
    (search / name).unlink()
    page = write_report(search)
    assert sections(page) == ALL_SECTIONS
    assert f"<strong>{name} is missing</strong>" in page.read_text()
    assert f"stepfront doctor {search.resolve().parent} --repair" in page.read_text()


@pytest.mark.parametrize("name", ["methods.parquet", "confirm.parquet"])
def test_a_table_that_was_never_made_is_not_missing_and_one_that_was_is(search: Path, name: str) -> None:
    begin_record(search)
    write_table(read_table(search / name), search / name)
    (search / name).unlink()
    verb = {"methods.parquet": "baselines", "confirm.parquet": "confirm"}[name]
    text = write_report(search).read_text()
    assert f"<strong>{name} is missing</strong>" in text
    assert f"stepfront {verb} {search.resolve().parent}" in text
    (search / "checksums.json").unlink()
    assert "missing</strong>" not in write_report(search).read_text()


@pytest.mark.parametrize("name", [name for name in SECTIONS_OF if name not in NOTED])
def test_a_section_without_its_file_is_left_out(search: Path, name: str) -> None:
    (search / name).unlink()
    assert sections(write_report(search)) == [name_ for name_ in ALL_SECTIONS if name_ not in SECTIONS_OF[name]]


@pytest.mark.parametrize("name", ["progress", "proxies"])
def test_a_section_whose_table_is_empty_is_left_out(search: Path, name: str) -> None:
    path = search / f"{name}.parquet"
    pd.read_parquet(path).iloc[:0].to_parquet(path)
    assert not SECTIONS_OF[path.name] & set(sections(write_report(search)))


def test_only_the_required_tables_make_a_report(search: Path) -> None:
    for name in SECTIONS_OF:
        (search / name).unlink()
    (search / "search.json").write_text("{}")
    noted = ["baselines", "hypervolume", "timeline", "origins", "proxies"]
    assert sections(write_report(search)) == ["figures", "front", "points", "plans", *noted, "facts"]


def test_a_search_that_has_scored_nothing_makes_a_report(search: Path) -> None:
    for name in ("trials", "front"):
        path = search / f"{name}.parquet"
        pd.read_parquet(path).iloc[:0].to_parquet(path)
    for name in ("versus", "methods", "confirm", "progress", "proxies", "baselines", "gap", "sensitivity"):
        (search / f"{name}.parquet").unlink()
    assert sections(write_report(search)) == ["figures", "images", "facts"]


def test_what_others_wrote_is_escaped(search: Path) -> None:
    front = pd.read_parquet(search / "front.parquet")
    front.loc[0, "plan"] = "<img onerror=alert(1)>"
    front.to_parquet(search / "front.parquet")
    facts = json.loads((search / "search.json").read_text())
    (search / "search.json").write_text(json.dumps(facts | {"name": "</title><script>alert(2)</script>"}))
    text = own_text(write_report(search))
    assert "<img onerror" not in text
    assert "&lt;img onerror" in text
    assert "<script>alert" not in text  # neither the name nor the error of the failed trial
    assert "&lt;script&gt;alert(&#x27;worker&#x27;)" in text
    assert "<b>shapes</b>" not in text
    assert "name: &lt;b&gt;shapes&lt;/b&gt;" in text


def test_a_long_search_stays_small(make_search: Callable[..., Path]) -> None:
    directory = make_search("long", count=3000, generations=100, steps=200)
    for index in range(4):
        noise = np.random.default_rng(index).random((900, 900, 3))
        _save(directory / "images" / f"noise{index}.png", noise)
    entries = [{"file": f"noise{index}.png", "title": "noise"} for index in range(4)]
    (directory / "images" / "index.json").write_text(json.dumps(entries))
    page = write_report(directory)
    assert page.stat().st_size < MOST_BYTES
    assert own_text(page).count("data:image/png;base64,") == 4


def test_an_image_is_halved_until_it_fits_or_is_left_out(tmp_path: Path) -> None:
    from matplotlib.image import imread

    path = tmp_path / "noise.png"
    _save(path, np.random.default_rng(0).random((512, 512, 3)))
    assert fitting_png(path, 10**7) == path.read_bytes()
    small = fitting_png(path, 300_000)
    assert small is not None
    assert len(small) < 300_000
    (tmp_path / "small.png").write_bytes(small)
    pixels = imread(path)[..., :3].reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(imread(tmp_path / "small.png")[..., :3], pixels, atol=1 / 255)
    assert fitting_png(path, 1000) is None
    path.write_bytes(b"no image")
    assert fitting_png(path, 10**7) is None


def test_an_index_can_not_reach_outside_its_folder(search: Path) -> None:
    _save(search / "secret.png", np.zeros((80, 80, 3)))
    (search / "images" / "index.json").write_text(json.dumps([{"file": "../secret.png", "title": "x"}, {"title": "y"}]))
    assert "images" not in sections(write_report(search))


def test_the_report_goes_where_it_is_asked_to(search: Path, tmp_path: Path) -> None:
    assert write_report(search, tmp_path / "new" / "page.html") == tmp_path / "new" / "page.html"
    assert not (search / "report.html").exists()


def test_a_comparison_shows_every_search(make_search: Callable[..., Path], tmp_path: Path) -> None:
    directories = [make_search("first <1>"), make_search("second", confirmed=False)]
    page = write_comparison(directories, tmp_path / "compared.html")
    text = own_text(page)
    assert sections(page) == ["searches", "settings", "fronts", "attainment", "plans"]
    assert "<h3>first &lt;1&gt;</h3>" in text
    assert "<h3>second</h3>" in text
    assert "can&#x27;t be compared" not in text
    assert "https://" not in text


def test_a_comparison_of_unlike_searches_warns(make_search: Callable[..., Path], tmp_path: Path) -> None:
    directories = [make_search("a"), make_search("b")]
    facts = json.loads((directories[1] / "search.json").read_text())
    (directories[1] / "search.json").write_text(json.dumps(facts | {"features": "inception"}))
    assert "they differ in features." in own_text(write_comparison(directories, tmp_path / "compared.html"))


def test_the_room_needs_tables_alone() -> None:
    heavy = ["torch", "ray", "optuna", "mlflow", "search", "trainers", "plotly", "matplotlib"]
    code = f"import sys, dashboards.report, dashboards.progress; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no search directory was given"):
        write_comparison([], tmp_path / "compared.html")


def _save(path: Path, pixels: np.ndarray) -> None:
    from matplotlib.image import imsave

    imsave(path, pixels)


def test_the_report_has_the_scores_beside_fid_where_there_are_any(search: Path) -> None:
    assert "KID" not in own_text(write_report(search))  # an older search, without the columns
    front = pd.read_parquet(search / "front.parquet")
    beside = {"kid": 0.00123, "kid_low": -0.0004, "kid_high": 0.0028, "precision": 0.71, "recall": 0.52}
    front.assign(**beside).to_parquet(search / "front.parquet")
    text = own_text(write_report(search))
    assert "KID" in text
    for cell in ("0.00123", "[-0.000400, 0.00280]", "0.71", "0.52"):
        assert f">{cell}</td>" in text
    assert "KID 0.00123, -0.000400 to 0.00280; precision 0.71, recall 0.52" in text  # the hover


def test_only_confirmed_scores_in_use_are_compared(search: Path) -> None:
    confirm = pd.read_parquet(search / "confirm.parquet")
    more = pd.concat([confirm.assign(used=False, fid=0.0, images=64), confirm.assign(used=True)])
    more.to_parquet(search / "confirm.parquet")
    used = read_tables(search).confirm
    assert used["used"].all()
    pd.testing.assert_frame_equal(used[confirm.columns], confirm, check_dtype=False)


def test_the_default_proxy_is_in_the_report(search: Path) -> None:
    path = search / "proxies.parquet"
    scores = pd.read_parquet(path)
    only = scores[scores["proxy"] == "fid"]
    pd.concat([only, only.assign(proxy=ScreenSettings().proxy)]).to_parquet(path)
    page = write_report(search)
    assert "proxies" in sections(page)
    assert ScreenSettings().proxy == "model"
    assert "proxy model" in own_text(page)


def test_missing_baselines_are_said_to_be_missing(search: Path) -> None:
    (search / "methods.parquet").unlink()
    (search / "versus.parquet").unlink()
    text = own_text(write_report(search))
    assert f"`stepfront baselines {search}` scores them" in text
    assert "What the search had to beat was not scored" in text
    assert "The same on held-out" not in text  # there is nothing before it that it could be the same as


def test_the_examinations_of_the_judges_are_shown(search: Path) -> None:
    scores = {"blur": [0.5, 1.0, 2.0], "noise": [0.4, 3.0, 9.0]}
    judge = {"dimensions": 64, "ratio": 7.6, "images": 90, "floor": 0.5, "spread": 0.1, "scores": scores}
    judges = [
        judge | {"role": "search", "used": False, "features": "degradations", "failures": ["it is <blind>"]},
        judge | {"role": "search", "used": True, "features": "random", "failures": []},
    ]
    (search / "judges.json").write_text(json.dumps(judges))
    text = own_text(write_report(search))
    assert "judges" in sections(search / "report.html")
    assert "failed: it is &lt;blind&gt;" in text
    assert ">passed</td>" in text
    assert [one.name for one in judges_data(read_tables(search))] == ["random"]
    assert judges_data(read_tables(search))[0].curves["blur"] == [1.0, 2.0, 4.0]


def test_the_points_of_the_front_can_be_clicked(search: Path) -> None:
    text = own_text(write_report(search))
    found = re.search(r'id="clicked-data">(.*?)</script>', text)
    assert found
    points, front = json.loads(found[1]), read_tables(search).front
    assert set(points) == {str(trial) for trial in front["trial"]}
    for row in front.itertuples():
        assert points[str(row.trial)]["plan"] == row.plan
        assert len(points[str(row.trial)]["times"]) == len(row.times)
        assert f'<tr data-trial="{row.trial}">' in text
