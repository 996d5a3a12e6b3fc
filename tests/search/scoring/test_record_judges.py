"""What a search records of its judges: its own and its second one, and none that other searches use."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stepfront.files import write_json
from stepfront.search.scoring.record_judges import record_judges
from stepfront.search.scoring.second_judge import FOLDER
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.metrics.examination import Examination
from stepfront.trainers.metrics.features import PackedFeatures


def packed(name: str, seed: int = 0) -> PackedFeatures:
    return PackedFeatures(FeatureSettings(name=name, seed=seed), f"{name} {seed}".encode())


def examined(folder: Path, features: PackedFeatures, *failures: str, ratio: float = 6.2) -> None:
    folder.mkdir(exist_ok=True)
    result = Examination(features.name, 64, ratio, 512, 0.2, 0.01, {"blur": [1.0, 2.0, 3.0, 4.0, 5.0]}, failures)
    made_from = {"digest": features.digest, "fingerprint": "f"}
    write_json(folder / f"examination-{features.digest[:12]}.json", asdict(result) | {"made_from": made_from})


def recorded(directory: Path) -> list[tuple[str, str, bool, float]]:
    entries: list[dict[str, Any]] = json.loads((directory / "judges.json").read_text())
    return [(one["role"], one["features"], one["used"], one["ratio"]) for one in entries]


@pytest.fixture
def problem(tmp_path: Path) -> Any:
    """Return a search on `degradations`; other searches of its supernet used a classifier and another seed."""
    supernet = tmp_path / "supernet"
    examined(supernet, packed("degradations"))
    examined(supernet, packed("degradations", seed=1), ratio=5.0)
    examined(supernet, packed("classifier"), ratio=7.1)
    examined(supernet / FOLDER, packed("classifier"), ratio=7.1)
    examined(supernet / FOLDER, packed("random"), ratio=32.0)
    return SimpleNamespace(supernet=SimpleNamespace(local=supernet), features=packed("degradations"))


def test_judges_of_other_searches_of_the_supernet_are_not_this_search_s(problem: Any, tmp_path: Path) -> None:
    record_judges(problem, tmp_path)
    assert recorded(tmp_path) == [("search", "degradations", True, 6.2)]
    record_judges(problem, tmp_path, packed("random"))
    assert recorded(tmp_path) == [("search", "degradations", True, 6.2), ("confirm", "random", True, 32.0)]


def test_a_resumed_search_keeps_the_second_judge_of_its_confirmation(problem: Any, tmp_path: Path) -> None:
    record_judges(problem, tmp_path, packed("random"))
    before = recorded(tmp_path)
    record_judges(problem, tmp_path)
    assert recorded(tmp_path) == before
    (tmp_path / "judges.json").write_text("damaged")
    record_judges(problem, tmp_path)
    assert recorded(tmp_path) == before[:1]


def test_feature_sets_that_failed_are_listed_as_not_used(problem: Any, tmp_path: Path) -> None:
    examined(problem.supernet.local, packed("random"), "it is blind", ratio=3.9)
    record_judges(problem, tmp_path)
    assert set(recorded(tmp_path)) == {("search", "degradations", True, 6.2), ("search", "random", False, 3.9)}


def test_features_that_failed_and_are_used_all_the_same_are_marked_as_used(problem: Any, tmp_path: Path) -> None:
    examined(problem.supernet.local, problem.features, "it is blind")
    record_judges(problem, tmp_path)
    assert recorded(tmp_path) == [("search", "degradations", True, 6.2)]


def test_features_that_nobody_examined_leave_no_entry(problem: Any, tmp_path: Path) -> None:
    problem.features = packed("random")
    record_judges(problem, tmp_path)
    assert recorded(tmp_path) == []
