"""Weights and card of a feature network are two files: they stay together wherever a process is killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepfront.errors import InputError
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.feature_networks import classifier, degradation_features, network_files, random_features
from stepfront.trainers.metrics.feature_set import find_feature_set

FILES = {
    "random": (random_features.WEIGHTS, random_features.CARD),
    "degradations": (degradation_features.WEIGHTS, degradation_features.CARD),
    "classifier": (classifier.CLASSIFIER_WEIGHTS, classifier.CLASSIFIER_CARD),
}


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def few(digits: ImageData) -> ImageData:
    assert digits.labels is not None
    return replace(digits, images=digits.images[:200], labels=digits.labels[:200])


def prepare(name: str, data: ImageData, directory: Path, seed: int = 0) -> bytes:
    settings = FeatureSettings(name=name, seed=seed, training_steps=1, classifier_epochs=1, examine="skip")
    features = find_feature_set(settings)
    features.prepare(data, directory, lambda done, total: None)
    return features.pack(directory)


@pytest.mark.parametrize("name", FILES)
def test_weights_of_a_call_that_was_killed_before_its_card_are_made_again(
    name: str, few: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare(name, few, tmp_path)

    def kill(*given: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(classifier if name == "classifier" else network_files, "write_json", kill)
        with pytest.raises(KilledError):
            prepare(name, few, tmp_path, seed=1)
    assert (tmp_path / FILES[name][0]).read_bytes() != made
    assert prepare(name, few, tmp_path) == made


@pytest.mark.parametrize("name", FILES)
def test_weights_that_are_gone_or_of_another_seed_are_made_again_beside_their_card(
    name: str, few: ImageData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights, card = (tmp_path / file for file in FILES[name])
    made, other = prepare(name, few, tmp_path), prepare(name, few, tmp_path / "other", seed=1)
    whole = card.read_text()
    weights.unlink()
    assert prepare(name, few, tmp_path) == made
    weights.write_bytes(other)
    with pytest.raises(InputError, match=f"{weights} does not belong to {card.name}: the weights' digest differs"):
        find_feature_set(FeatureSettings(name=name)).pack(tmp_path)
    assert prepare(name, few, tmp_path) == made
    assert "so it is made again" in caplog.text
    assert card.read_text() == whole


@pytest.mark.parametrize("name", ["random", "degradations"])
def test_a_card_without_digest_is_believed_and_completed(name: str, few: ImageData, tmp_path: Path) -> None:
    weights, card = (tmp_path / file for file in FILES[name])
    made = prepare(name, few, tmp_path)
    whole, before = json.loads(card.read_text()), weights.stat().st_mtime_ns
    card.write_text(json.dumps({key: value for key, value in whole.items() if key != "digest"}))
    assert find_feature_set(FeatureSettings(name=name)).pack(tmp_path) == made
    assert prepare(name, few, tmp_path) == made
    assert weights.stat().st_mtime_ns == before
    assert json.loads(card.read_text()) == whole
