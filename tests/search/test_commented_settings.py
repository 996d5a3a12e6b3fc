"""`stepfront init`: a settings file that says what each setting means, and reads as its preset."""

from __future__ import annotations

import re

import pytest

from stepfront.search.commented_settings import commented_settings
from stepfront.search.config import RunSettings, settings_from
from stepfront.search.presets import preset, preset_names, preset_text
from stepfront.search.settings.yaml_reader import read_yaml
from stepfront.search.settings_reference import groups, keys


@pytest.mark.parametrize("name", preset_names())
def test_a_written_file_reads_as_its_preset(name: str) -> None:
    text = commented_settings(preset_text(name), "mine")
    assert settings_from(read_yaml(text)) == settings_from(preset(name) | {"name": "mine"})
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", preset_names())
def test_its_defaults_are_the_defaults(name: str) -> None:
    text = commented_settings(preset_text(name), "mine")
    active = re.sub(r"^#(?=(?:  )*[a-z_0-9]+:)", "", text, flags=re.MULTILINE)
    assert settings_from(read_yaml(active)) == settings_from(read_yaml(text))
    assert len([line for line in active.splitlines() if not line.startswith("#")]) > 100


def test_every_setting_stands_in_it_with_its_description() -> None:
    text = commented_settings(preset_text("digits"), "mine")
    words = " ".join(re.sub(r"^ *# ", "", line) for line in text.splitlines())
    words = " ".join(words.split())
    described = [*keys(RunSettings), *(key for _, group in groups(RunSettings) for key in keys(group))]
    assert not [key.key for key in described if " ".join(key.description.split()) not in words]
    assert "scikit-learn's digits: 1,797 real 8x8 images." in words


def test_comments_of_the_preset_stay_at_their_settings() -> None:
    lines = commented_settings(preset_text("cifar10"), "mine").splitlines()
    place = lines.index("  group_channels: 1")
    assert lines[place - 1] == "  # 32 groups at every width; 4 would avoid norms of single channels at width 0.25"
