"""A distance of features: which network is compared by, and what is refused before anything is learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.search.learning.distance_features import distance_features
from stepfront.search.learning.search_samplers import sampler_task
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.evaluator_parts import worker_parts
from stepfront.search.problem.load import load_problem
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import SamplerRecord
from stepfront.search.scoring import second_judge
from stepfront.search.scoring.second_judge import check_not_second_judge
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.metrics.features import Judge, PackedFeatures
from tests.search.conftest import tiny_settings
from tests.search.learning.test_search_samplers import search_settings


class Pixels(nn.Module):
    """Features that are the pixels themselves, so that distances are known."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).round()


def file_of(network: nn.Module, path: Path) -> str:
    torch.jit.save(torch.jit.script(network), str(path))
    return str(path)


@pytest.fixture
def pixels(tmp_path: Path) -> str:
    return file_of(Pixels(), tmp_path / "pixels.pt")


@pytest.fixture
def problem(searched: Path) -> SearchProblem:
    return load_problem(search_settings(searched.parents[1]))


def comparing(problem: SearchProblem, distance: str, name: str | None = None, path: str | None = None) -> SearchProblem:
    learning = problem.settings.learning
    features = learning.features.model_copy(update={"name": name, "path": path})
    learning = learning.model_copy(update={"distance": distance, "features": features})
    return replace(problem, settings=problem.settings.model_copy(update={"learning": learning}))


def test_a_sampler_is_learnt_by_the_features_of_a_file(problem: SearchProblem, searched: Path, pixels: str) -> None:
    costs, records, keys = read_costs(searched), dict[str, SamplerRecord](), set[str]()
    for distance in ("features", "both", "squared"):
        chosen = comparing(problem, distance, "pixels", pixels)
        features = distance_features(chosen)
        assert (features is None) == (distance == "squared")
        task = sampler_task(chosen, worker_parts(chosen, costs), (1.0, 1.0), "network_times", features=features)
        records[distance] = task.run()
        keys |= {task.key, replace(task, features=None).key}
    assert len(keys) == 5  # the digest of the network belongs to the key of a sampler
    held_out = {distance: record.start_held_out or 0.0 for distance, record in records.items()}
    assert held_out["both"] == pytest.approx(2 * held_out["features"], rel=1e-4)  # both are in units of the variance
    assert all(record.held_out != record.start_held_out for record in records.values())


def test_what_samplers_cannot_learn_from_is_refused_before_anything_is_learnt(
    problem: SearchProblem, tmp_path: Path, pixels: str
) -> None:
    with pytest.raises(InputError, match=r"learning\.distance: features needs a network to compare images by"):
        distance_features(comparing(problem, "features"))
    with pytest.raises(InputError, match=r"no feature file at nowhere\.pt"):
        distance_features(comparing(problem, "both", "lpips", "nowhere.pt"))
    rounded = file_of(Rounded(), tmp_path / "rounded.pt")
    with pytest.raises(InputError, match="'rounded' let no gradient through"):
        distance_features(comparing(problem, "features", "rounded", rounded))


def test_a_search_with_learnt_samplers_names_its_network(tmp_path: Path) -> None:
    for own in ("sampler.times=learnt", "fit.every=2"):
        with pytest.raises(InputError, match="name one that does not score the search"):
            tiny_settings(tmp_path, own, "learning.distance=both", "space.skip=even", "learning.teacher_steps=8")
    with pytest.raises(InputError, match="features 'lpips' need a path"):
        tiny_settings(tmp_path, "learning.features.name=lpips")
    with pytest.raises(InputError, match="need a name of their own"):
        tiny_settings(tmp_path, "learning.features.path=lpips.pt")


def test_features_of_a_judge_are_refused_unless_they_are_named_as_the_search_s_own(
    problem: SearchProblem, pixels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = replace(
        problem, features=PackedFeatures(FeatureSettings(name="mine", path=pixels), Path(pixels).read_bytes())
    )
    with pytest.raises(InputError, match=r"are the search's own features 'mine': .* looks better than it is"):
        distance_features(comparing(judged, "features", "pixels", pixels))
    named = comparing(judged, "features", "mine", pixels)
    assert distance_features(named) is judged.features
    other, same = problem.features, replace(judged.features, settings=FeatureSettings(name="copy", path=pixels))
    monkeypatch.setattr(second_judge, "load_second_judge", lambda problem: Judge(other, problem.reference))
    check_not_second_judge(named, judged.features)
    monkeypatch.setattr(second_judge, "load_second_judge", lambda problem: Judge(same, problem.reference))
    with pytest.raises(InputError, match=r"confirm\.features 'copy', is what samplers learn to match"):
        check_not_second_judge(named, judged.features)
