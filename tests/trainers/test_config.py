"""Settings: what is refused, and that one line says what would be right."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings, DiffusionSettings, FeatureSettings, SamplerSettings, TrainerSettings
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.training_settings import TrainingSettings
from stepfront.trainers.validation import Settings, validate


def refusal(model: type[Settings], given: Any) -> str:
    with pytest.raises(InputError) as caught:
        validate(model, given)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_given_is_the_defaults_and_lists_become_tuples() -> None:
    assert validate(TrainerSettings, {}) == TrainerSettings()
    given = {"network": {"multipliers": [1, 2, 2], "widths": [0.5, 1.0]}, "training": {"lr": 1}}
    settings = validate(TrainerSettings, given)
    assert settings.network.multipliers == (1, 2, 2)
    assert settings.network.widths == (0.5, 1.0)
    assert settings.training.lr == 1.0


def test_settings_survive_json() -> None:
    settings = validate(TrainerSettings, {"network": {"base": 8, "widths": [0.375, 1.0]}, "data": {"flip": True}})
    assert validate(TrainerSettings, settings.model_dump(mode="json")) == settings


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        TrainingSettings().lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "key", "possible"),
    [
        ({"trainig": {}}, "'trainig'; did you mean training?", "data, diffusion, features, network, training"),
        (
            {"data": {"fromat": "idx"}},
            "'data.fromat'; did you mean data.format?",
            ", ".join(sorted(DataSettings.model_fields)),
        ),
        (
            {"diffusion": {"beta": 1}},
            "'diffusion.beta'; did you mean diffusion.beta_last or diffusion.beta_first?",
            "beta_first, beta_last, data_std, prediction, schedule, shift, steps",
        ),
    ],
)
def test_an_unknown_key_names_those_that_are_possible_there(given: Any, key: str, possible: str) -> None:
    assert refusal(TrainerSettings, given) == f"unknown setting {key} possible here: {possible}"


def test_a_key_that_resembles_none_gets_no_guess() -> None:
    message = refusal(TrainerSettings, {"data": {"xyz": 1}})
    assert message.startswith("unknown setting 'data.xyz'; possible here: autoencoder, background, ")


@pytest.mark.parametrize(
    ("given", "shown"),
    [("12", "'12'"), (True, "True"), (12.0, "12.0"), (12.5, "12.5"), (None, "None"), ([12], "[12]")],
)
def test_what_is_no_integer_is_refused_and_shown(given: Any, shown: str) -> None:
    message = refusal(TrainerSettings, {"training": {"steps": given}})
    assert message.startswith("training.steps: input should be a whole number")
    assert message.endswith(f"(given: {shown})")


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (TrainingSettings, {"lr": "1e-3"}),
        (TrainingSettings, {"lr": True}),
        (TrainingSettings, {"lr": 0}),
        (TrainingSettings, {"lr": float("nan")}),
        (TrainingSettings, {"ema": 1.0}),
        (TrainingSettings, {"decay": 1}),
        (TrainingSettings, {"decay": "yes"}),
        (TrainingSettings, {"seed": -1}),
        (TrainingSettings, {"precision": "float16"}),
        (DataSettings, {"format": "mnist"}),
        (DataSettings, {"channels": 2}),
        (DataSettings, {"path": 3}),
        (DataSettings, {"held_out": 1.0}),
        (NetworkSettings, {"multipliers": []}),
        (NetworkSettings, {"multipliers": [1, 0]}),
        (NetworkSettings, {"multipliers": [-1]}),
        (NetworkSettings, {"multipliers": 2}),
        (NetworkSettings, {"attention": [0]}),
        (NetworkSettings, {"blocks": 0}),
        (DiffusionSettings, {"steps": 1}),
        (DiffusionSettings, {"schedule": "Linear"}),
        (SamplerSettings, {"solver": "euler"}),
        (SamplerSettings, {"steps": 1001}),
    ],
)
def test_wrong_types_and_impossible_values_name_the_key(model: type[Settings], given: dict[str, Any]) -> None:
    (key,) = given
    assert refusal(model, given).startswith(key)


@pytest.mark.parametrize("given", [[1], 3, "text", None])
def test_what_is_no_mapping_is_refused(given: Any) -> None:
    assert refusal(TrainerSettings, given).startswith("settings: input should be a group of settings")
    assert refusal(TrainerSettings, {"data": given}).startswith("data: input should be a group of settings")


def test_what_json_cannot_carry_is_refused() -> None:
    assert "not JSON serializable" in refusal(DataSettings, {"path": object()})


def test_the_first_of_several_mistakes_is_shown_and_the_others_are_counted() -> None:
    assert refusal(TrainingSettings, {"lr": -1, "steps": 0, "batch": 0}).endswith("; and 2 other mistakes")


@pytest.mark.parametrize(
    "widths", [[], [0.5], [1.0, 0.5], [0.5, 0.5, 1.0], [0.0, 1.0], [-0.5, 1.0], [0.5, 1.5], [0.5, 1.0, 2.0]]
)
def test_widths_that_do_not_ascend_to_one_are_refused_with_an_example(widths: list[float]) -> None:
    assert "ascend within (0, 1] and end in 1.0, such as [0.25, 0.5" in refusal(NetworkSettings, {"widths": widths})


@pytest.mark.parametrize(
    ("base", "width", "channels", "nearest"),
    [(32, 0.3, "9.6", "0.3125"), (8, 0.125, "1", "0.25"), (10, 0.25, "2.5", "0.2"), (4, 0.25, "1", "0.5")],
)
def test_a_width_of_broken_channels_names_the_nearest_possible(
    base: int, width: float, channels: str, nearest: str
) -> None:
    message = refusal(NetworkSettings, {"base": base, "widths": [width, 1.0]})
    assert f"width {width} of base {base} is {channels} channels" in message
    assert message.endswith(f"the nearest possible width is {nearest}")


@pytest.mark.parametrize(
    ("base", "width"), [(100, 0.55), (100, 0.07), (50, 0.14), (90, 0.7), (25, 0.56), (128, 0.015625), (8, 0.375)]
)
def test_whole_channels_are_whole_in_spite_of_floats(base: int, width: float) -> None:
    assert validate(NetworkSettings, {"base": base, "widths": [width, 1.0]}).widths == (width, 1.0)


def test_data_that_are_files_need_a_path() -> None:
    for format in ("idx", "npz", "folder"):
        assert refusal(DataSettings, {"format": format}) == f"settings: format {format} needs a path"


def test_a_feature_file_and_its_name_belong_together() -> None:
    assert "'inception' need a path" in refusal(FeatureSettings, {"name": "inception"})
    assert "a name of their own" in refusal(FeatureSettings, {"path": "features.pt"})
    assert validate(FeatureSettings, {"name": "inception", "path": "features.pt"}).path == "features.pt"
