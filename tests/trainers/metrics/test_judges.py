"""Feature sets that need no labels, their examination, and the choice of a judge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.feature_networks.degradation_features import kinds_of, train_network
from stepfront.trainers.metrics import judges
from stepfront.trainers.metrics.examination import STRENGTHS, Examination, examine, participation_ratio
from stepfront.trainers.metrics.features import FeatureNetwork, prepare_features
from stepfront.trainers.metrics.fid import Moments, Reference
from stepfront.trainers.metrics.harm import harm_images
from stepfront.trainers.metrics.judges import (
    CANDIDATES,
    examination_of,
    find_examination,
    prepare_judge,
    read_examinations,
)
from stepfront.trainers.validation import validate

CPU = torch.device("cpu")
RANDOM = FeatureSettings(name="random")


def without_labels(data: ImageData) -> ImageData:
    return replace(data, labels=None, held_out_labels=None)


# --- random features --------------------------------------------------------------------------------------------------


def test_random_features_of_the_training_images_are_white(digits: ImageData, tmp_path: Path) -> None:
    packed, reference = prepare_features(without_labels(digits), RANDOM, tmp_path, CPU)
    assert reference.covariance.shape == (32, 32)
    assert reference.covariance == pytest.approx(np.eye(32), abs=1e-3)
    assert reference.mean == pytest.approx(np.zeros(32), abs=1e-3)
    assert packed.name == "random"


def test_random_features_are_a_function_of_their_seed_alone(digits: ImageData, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first, _ = prepare_features(digits, RANDOM, tmp_path / "a", CPU)
    torch.manual_seed(2)
    expected = torch.random.get_rng_state()
    second, _ = prepare_features(digits, RANDOM, tmp_path / "b", CPU)
    assert torch.equal(torch.random.get_rng_state(), expected)
    other, _ = prepare_features(digits, RANDOM.model_copy(update={"seed": 1}), tmp_path / "c", CPU)
    assert first.content == second.content
    assert first.digest != other.digest


# --- features of degradations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "kinds"), [(None, 16), (2, 16), (10, 10)])
def test_kinds_are_classes_where_there_are_many_and_clusters_where_there_are_few(
    classes: int | None, kinds: int, digits: ImageData
) -> None:
    assert digits.labels is not None
    data = digits if classes is None else replace(digits, labels=digits.labels % classes)
    found = kinds_of(without_labels(data) if classes is None else data, seed=0)
    assert sorted(set(found.tolist())) == list(range(kinds))
    if classes is not None and data.labels is not None:
        assert all(len(set(data.labels[found == kind].tolist())) == 1 for kind in range(kinds))


def test_the_network_of_degradations_is_a_function_of_its_seed_and_travels_as_bytes(
    digits: ImageData, tmp_path: Path
) -> None:
    few = FeatureSettings(name="degradations", training_steps=3)
    first, _ = prepare_features(without_labels(digits), few, tmp_path / "a", CPU)
    second, _ = prepare_features(without_labels(digits), few, tmp_path / "b", CPU)
    assert first.content == second.content
    with torch.random.fork_rng():
        torch.manual_seed(few.seed)
        network = train_network(without_labels(digits), 3, few.seed, lambda done, total: None)
    images = to_float(digits.held_out_images[:8])
    with torch.inference_mode():
        expected = network.features(images)
    assert first.unpack(CPU)(images) == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize("name", ["random", "degradations"])
def test_damaged_bytes_are_refused_in_one_line(name: str, digits: ImageData, tmp_path: Path) -> None:
    packed, _ = prepare_features(digits, FeatureSettings(name=name, training_steps=1), tmp_path, CPU)
    with pytest.raises(InputError, match="not a complete safetensors file"):
        replace(packed, content=packed.content[:100]).unpack(CPU)


# --- the examination --------------------------------------------------------------------------------------------------


def test_the_participation_ratio_counts_directions() -> None:
    assert participation_ratio(np.eye(7)) == pytest.approx(7)
    assert participation_ratio(np.diag([1.0, 0, 0])) == pytest.approx(1)
    assert participation_ratio(np.diag([2.0, 1, 1])) == pytest.approx(16 / 6)
    with pytest.raises(InputError, match="constant"):
        participation_ratio(np.zeros((3, 3)))


def test_random_features_pass_and_every_harm_scores_above_real_images(digits: ImageData, tmp_path: Path) -> None:
    packed, reference = prepare_features(digits, RANDOM, tmp_path, CPU)
    result = examine(packed.unpack(CPU), reference, digits)
    assert result.passed, result.failures
    assert result.ratio == pytest.approx(32, rel=0.01)
    for scores in result.scores.values():
        assert scores[-1] > 2 * result.floor


def features_from(function: object, data: ImageData) -> tuple[FeatureNetwork, Reference]:
    network = FeatureNetwork("mine", function, CPU)  # type: ignore[arg-type]
    moments = Moments.of([network(to_float(data.images))])
    return network, Reference(moments.mean, moments.covariance, moments.count, "mine", "", data.fingerprint)


def test_features_of_one_direction_fail(digits: ImageData) -> None:
    def brightness(levels: Tensor) -> Tensor:
        mean = levels.mean(dim=(1, 2, 3))
        return torch.stack([mean, 1e-3 * levels.std(dim=(1, 2, 3))], dim=1)

    result = examine(*features_from(brightness, digits), digits)
    assert not result.passed
    assert any("one direction (participation ratio 1.0)" in failure for failure in result.failures)


def test_features_that_hash_the_image_fail_at_every_harm(digits: ImageData) -> None:
    def chance(levels: Tensor) -> Tensor:
        return torch.sin(levels.double().sum(dim=(1, 2, 3))[:, None] * torch.tensor([1e3, 3e3, 7e3, 9e3]))

    result = examine(*features_from(chance, digits), digits)
    assert result.ratio > 3
    assert len(result.failures) >= 3


def test_nan_and_too_few_images_are_one_line(digits: ImageData, tmp_path: Path) -> None:
    packed, reference = prepare_features(digits, RANDOM, tmp_path, CPU)
    few = replace(digits, held_out_images=digits.held_out_images[:20])
    with pytest.raises(InputError, match="32 held-out images or more, and there are 20"):
        examine(packed.unpack(CPU), reference, few)
    broken = FeatureNetwork("mine", lambda levels: torch.full((len(levels), 32), torch.nan), CPU)
    with pytest.raises(InputError, match="not finite"):
        examine(broken, reference, digits)


def test_blurred_images_never_score_better_on_both_judges_of_auto(digits: ImageData, tmp_path: Path) -> None:
    # Fewer training steps than a search's, which would take 20 seconds; `make bench-judges` has all 800.
    settings = [FeatureSettings(name=name, training_steps=200) for name in CANDIDATES]
    prepared = [prepare_features(digits, one, tmp_path, CPU) for one in settings]
    judges_ = [(packed.unpack(CPU), reference) for packed, reference in prepared]

    def scores(images: Tensor) -> np.ndarray:
        return np.array([reference.distance(Moments.of([features(images)])) for features, reference in judges_])

    held_out = to_float(digits.held_out_images)
    for noise in (0.0, 0.1, 0.2):
        images = harm_images(held_out, "noise", noise, 1) if noise else held_out
        sharp = scores(images)
        for strength in STRENGTHS[1:]:  # the slightest blur changes a score by less than its noise
            blurred = scores(harm_images(images, "blur", strength, 0))
            assert (blurred > sharp).any(), f"noise {noise}, blur {strength}: {blurred} against {sharp}"
            if strength >= 0.4:
                assert (blurred > sharp).all(), f"noise {noise}, blur {strength}: {blurred} against {sharp}"


@pytest.mark.parametrize("examine", ["refuse", "skip"])
@pytest.mark.parametrize(("name", "words"), [("Nothing", "are not finite on real images"), ("Same", "are constant")])
def test_features_that_say_nothing_are_refused_with_or_without_examination(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examine: str, name: str, words: str
) -> None:
    (tmp_path / "dull_features.py").write_text(
        "import torch\nfrom stepfront.trainers.metrics.feature_set import FeatureSet\n"
        "class Same(FeatureSet):\n    value = 1.0\n    def pack(self, directory): return b'1'\n"
        "    def open(self, content, device): return lambda levels: torch.full((len(levels), 8), self.value)\n"
        "class Nothing(Same):\n    value = float('nan')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = validate(FeatureSettings, {"name": f"dull_features:{name}", "examine": examine})
    for _ in range(2):  # a second call finds nothing that the first has left
        with pytest.raises(InputError, match=f"features 'dull_features:{name}' {words}"):
            prepare_judge(digits, settings, tmp_path, CPU)


# --- the choice -------------------------------------------------------------------------------------------------------


def test_auto_replaces_features_that_fail_and_says_so(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = judges.examine

    def strict(features: FeatureNetwork, *given: object) -> object:
        result = real(features, *given)  # type: ignore[arg-type]
        return replace(result, failures=("it is blind",)) if features.name == "degradations" else result

    monkeypatch.setattr(judges, "examine", strict)
    auto = FeatureSettings(name="auto", training_steps=2)
    packed, _ = prepare_judge(digits, auto, tmp_path, CPU)
    assert packed.name == "random"
    assert "features degradations are not used: it is blind" in caplog.text
    assert [(one.features, one.passed) for one in read_examinations(tmp_path)] == [
        ("degradations", False),
        ("random", True),
    ]


def test_auto_passes_over_features_that_these_images_cannot_have(digits: ImageData, tmp_path: Path) -> None:
    auto = FeatureSettings(name="auto", examine="skip")
    packed, _ = prepare_judge(without_labels(digits), auto, tmp_path, CPU, candidates=("classifier", "random"))
    assert packed.name == "random"
    with pytest.raises(InputError, match=r"no feature set can judge these images \(classifier: .*labels"):
        prepare_judge(without_labels(digits), auto, tmp_path, CPU, candidates=("classifier",))


def test_named_features_that_fail_are_refused_unless_told_otherwise(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = judges.examine
    monkeypatch.setattr(judges, "examine", lambda *given: replace(real(*given), failures=("it is blind",)))
    with pytest.raises(InputError, match="features 'random' failed their examination on these images: it is blind"):
        prepare_judge(digits, RANDOM, tmp_path, CPU)
    packed, _ = prepare_judge(digits, RANDOM.model_copy(update={"examine": "warn"}), tmp_path, CPU)
    assert packed.name == "random"


def test_an_examination_is_made_once_per_dataset_and_features(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined: list[object] = []
    real = judges.examine

    def examine(*given: Any) -> Any:
        examined.append(given)
        return real(*given)

    monkeypatch.setattr(judges, "examine", examine)
    first, _ = prepare_judge(digits, RANDOM, tmp_path, CPU)
    second, _ = prepare_judge(digits, RANDOM, tmp_path, CPU)
    assert len(examined) == 1
    assert first.digest == second.digest


def test_an_examination_of_another_version_is_made_again(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    result = Examination("random", 32, 31.5, 64, 0.25, 0.5, {"noise": [1.0, 2.0]}, ("it is blind",))
    monkeypatch.setattr(judges, "examine", lambda *given: result)
    prepared = prepare_features(digits, RANDOM, tmp_path, CPU)
    assert examination_of(prepared, digits, tmp_path, CPU, True) == result
    assert find_examination(tmp_path, prepared[0]) == result
    (path,) = tmp_path.glob("examination-*.json")
    content = json.loads(path.read_text())
    others: dict[str, dict[str, object]] = {
        "no failures": {key: value for key, value in content.items() if key != "failures"},
        "an unknown score": content | {"score": 1.0},
        "floor: Input should be a valid number": content | {"floor": "low"},
    }
    for says, other in others.items():
        path.write_text(json.dumps(other))
        assert find_examination(tmp_path, prepared[0]) is None
        assert read_examinations(tmp_path) == []
        assert f"{path} was written by another version of stepfront ({says}" in caplog.text
        assert examination_of(prepared, digits, tmp_path, CPU, True) == result
        assert json.loads(path.read_text()) == content
