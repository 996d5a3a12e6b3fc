"""A second stage from a supernet: a supernet with weights per group is searched and exported, and merged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import stepfront
from stepfront.errors import InputError
from stepfront.search.adaptation.adapt import adapted_settings, run_adaptation, settings_of_supernet
from stepfront.search.checks.integrity import check_search
from stepfront.search.config import RunSettings
from stepfront.search.driver.publish import make_evaluator, sample_pixels
from stepfront.search.driver.search import run_search
from stepfront.search.export.exported.sample import Point
from stepfront.search.export.pipeline_folder import export_pipeline
from stepfront.search.export.program import write_point
from stepfront.search.problem.load import load_problem, load_problem_of_search
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import ADAPTATION
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.networks.card import read_card
from tests.search.conftest import Silent, tiny_settings

GROUPS = ["adapt.groups.count=2", "adapt.groups.by=times", "adapt.steps=2", "training.samples_every=0"]


def adapted(supernet: Path, *overrides: str) -> RunSettings:
    return adapted_settings(settings_of_supernet(str(supernet), [*GROUPS, *overrides]))


def adapt(supernet: Path, *overrides: str) -> tuple[RunSettings, bool]:
    settings = adapted(supernet, *overrides)
    done = run_adaptation(settings, str(supernet), False, lambda report: None, lambda text: None)
    return settings, done.new


def test_a_supernet_with_groups_is_searched_and_exported(fresh: Path, tmp_path: Path) -> None:
    settings, new = adapt(fresh / "tiny")
    assert new
    assert (settings.name, adapt(fresh / "tiny")[1]) == ("tiny-groups-2", False)
    card = read_card(settings.supernet_directory)
    assert card.groups is not None
    assert card.groups.first == (0, 500)
    searched = run_search(settings, False, Silent(), lambda text: None)
    made = settings.supernet_directory / ADAPTATION
    assert read_table(searched / ADAPTATION).equals(read_table(made))
    findings = {finding.what: finding for finding in check_search(searched)}
    assert [what for what, finding in findings.items() if not finding.usable] == []
    assert findings["supernet"].detail.startswith("2 groups of times, digest ")

    problem, snapshot = load_problem_of_search(find_search(searched)[1], searched), read_snapshot(searched)
    evaluator, row = make_evaluator(problem, searched), snapshot.front.iloc[0]
    assert evaluator(plan_of_row(row), int(row["images"]), int(row["noise_seed"])).fid == row["fid"]

    plan = problem.plan(([0.5, 1.0] * settings.sampler.steps)[: settings.sampler.steps])
    content = write_point(problem, snapshot.facts, row, plan, tmp_path)
    assert {one["group"] for one in content["networks"]} == {0, 1}
    images = Point(tmp_path, "cpu").sample([3] * 4, range(4))
    assert np.array_equal(np.moveaxis(images, 3, 1), sample_pixels(evaluator, plan, 4, 3))

    with pytest.raises(InputError, match="a diffusers pipeline holds one network per width, and this supernet has 2"):
        export_pipeline(searched, "best", tmp_path / "pipeline", "mit")
    reusing = settings.model_copy(
        update={"space": settings.space.model_copy(update={"variants": ("0.5", "1.0", "1.0r")})}
    )
    with pytest.raises(InputError, match="this supernet has weights per group of times, which can't read each other's"):
        load_problem(reusing)


def test_merging_takes_the_groups_of_the_run_that_has_them(fresh: Path) -> None:
    adapt(fresh / "tiny")
    settings, new = adapt(fresh / "tiny", "adapt.merge=true")
    assert new
    assert not (settings.supernet_directory / "groups").exists()
    card = read_card(settings.supernet_directory)
    assert card.groups is None
    assert len(card.made_with["merge_factors"]) == 2
    assert card.network == read_card(fresh / "tiny" / "supernet").network
    with pytest.raises(InputError, match=r"was begun with adapt.lr 0.0001, not 0.5; start over with --fresh"):
        adapt(fresh / "tiny", "adapt.merge=true", "adapt.lr=0.5")
    with pytest.raises(InputError, match=r"with training.seed 0, not 1; start over with --fresh, or give another name"):
        adapt(fresh / "tiny", "adapt.merge=true", "training.seed=1")
    with pytest.raises(InputError, match=r"was adapted with adapt.weights float32, not bfloat16; start over"):
        adapt(fresh / "tiny", "adapt.merge=true", "adapt.weights=bfloat16")


def test_the_supernet_that_is_adapted_is_never_written_over(fresh: Path) -> None:
    base = fresh / "tiny" / "supernet"
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file() and "lock" not in path.name}
    with pytest.raises(InputError, match="would write over the supernet that it starts from; give another name"):
        run_adaptation(settings_of_supernet(str(base), GROUPS), str(base), True, lambda report: None, lambda text: None)
    made = stepfront.adapt(tiny_settings(fresh, *GROUPS), base, fresh=True, progress=False)
    assert made.directory == fresh / "tiny-groups-2" / "supernet"
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("diffusion.steps=500", "has other network or diffusion settings than these"),
        ("adapt.groups.count=1001", "1001 groups of 1000 training times"),
    ],
)
def test_fresh_deletes_nothing_where_a_setting_is_refused(fresh: Path, override: str, line: str) -> None:
    settings = adapted_settings(settings_of_supernet(str(fresh / "tiny"), [override]))
    settings.supernet_directory.mkdir(parents=True)
    (settings.supernet_directory / "kept").touch()
    with pytest.raises(InputError, match=line):
        run_adaptation(settings, str(fresh / "tiny"), True, lambda report: None, lambda text: None)
    assert (settings.supernet_directory / "kept").exists()


def test_name_and_folder_of_the_run_can_be_given(fresh: Path, tmp_path: Path) -> None:
    settings = adapted(fresh / "tiny", "name=other")
    assert settings.supernet_directory == fresh / "other-groups-2" / "supernet"
    settings = adapted(fresh / "tiny", f"directory={tmp_path / 'there'}")
    assert settings.supernet_directory == tmp_path / "there" / "tiny-groups-2" / "supernet"
