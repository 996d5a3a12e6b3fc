"""Features of the user's own that can't serve: one line before anything is trained, searched or deleted."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.files import write_json
from stepfront.search.driver.search import run_search
from stepfront.search.driver.train import run_training
from stepfront.search.problem.load import load_problem
from stepfront.search.scoring.second_judge import FOLDER, load_second_judge
from tests.search.cli.test_cli import call
from tests.search.conftest import tiny_settings

FEATURES = """
import torch
from stepfront.trainers.metrics.feature_set import FeatureSet


class Base(FeatureSet):
    def prepare(self, data, directory, progress):
        with open(directory / "own.txt", "a") as file:
            file.write("prepared ")

    def pack(self, directory):
        return b"1" + (directory / "own.txt").read_bytes()[:8]

    def open(self, content, device):
        return lambda levels: self.rows(levels.flatten(1) / 255)

    def rows(self, pixels):
        return pixels[:, :12]


class Once(Base):
    made = []

    def prepare(self, data, directory, progress):
        if not (directory / "own.txt").exists():
            super().prepare(data, directory, progress)
            self.made.append(directory)


class NotFinite(Base):
    def rows(self, pixels):
        return pixels / 0


class OneRow(Base):
    def rows(self, pixels):
        return pixels.mean(0, keepdim=True)


class Noisy(Base):
    def rows(self, pixels):
        return pixels + torch.rand_like(pixels)


class Together(Base):
    def rows(self, pixels):
        return pixels - pixels.mean(0)


class Raises(Base):
    def rows(self, pixels):
        raise KeyError("layer")


class Unprepared(Base):
    def prepare(self, data, directory, progress):
        raise RuntimeError("no network\\nat all")


def function(images):
    return images.mean(dim=(2, 3))
"""

UNUSABLE = {
    "NotFinite": "are not finite on real images",
    "OneRow": "gave 1 rows of 64 for 2 images; one row per image is needed",
    "Noisy": "differ between two calls on the same images",
    "Together": "of an image depend on the other images of the call",
    "Raises": "can't take images of 1x8x8: 'layer'",
    "Unprepared": r"fail \(RuntimeError: no network\); a feature set is a class derived from FeatureSet",
    "function": r"fail \(AttributeError: .*a feature set is a class derived from FeatureSet",
}


@pytest.fixture
def untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which nothing may be trained, and make the user's module importable."""

    def train(*given: object) -> None:
        raise AssertionError("a supernet was trained")

    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "own_features.py").write_text(FEATURES)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("stepfront.search.driver.train.train_supernet", train)
    return tmp_path


@pytest.mark.parametrize("group", ["features", "confirm.features"])
@pytest.mark.parametrize("name", UNUSABLE)
def test_own_features_that_cannot_serve_end_a_training_before_it_begins(name: str, group: str, untrained: Path) -> None:
    settings = tiny_settings(untrained, "tracking.uri=null", f"{group}.name=own_features:{name}")
    with pytest.raises(InputError, match=UNUSABLE[name]) as caught:
        run_training(settings, False, lambda report: None, lambda text: None)
    assert "\n" not in str(caught.value)
    assert not (settings.supernet_directory / "supernet.json").exists()


def test_own_features_that_serve_are_prepared_once(untrained: Path) -> None:
    settings = tiny_settings(untrained, "tracking.uri=null", "features.name=own_features:Base")
    with pytest.raises(AssertionError, match="a supernet was trained"):
        run_training(settings, False, lambda report: None, lambda text: None)
    assert (settings.supernet_directory / "own.txt").read_text() == "prepared "  # where the search looks for it


def test_a_new_start_with_features_that_cannot_serve_deletes_nothing(fresh: Path, untrained: Path) -> None:
    settings = tiny_settings(fresh, "tracking.uri=null", "features.name=own_features:Noisy")
    held = sorted(path.name for path in settings.supernet_directory.iterdir())
    with pytest.raises(InputError, match="differ between two calls"):
        run_training(settings, True, lambda report: None, lambda text: None)
    assert sorted(path.name for path in settings.supernet_directory.iterdir()) == held


def test_a_search_whose_second_judge_cannot_serve_does_not_begin(fresh: Path, untrained: Path) -> None:
    settings = tiny_settings(fresh, "tracking.uri=null", "confirm.features.name=own_features:Noisy")
    with pytest.raises(InputError, match="differ between two calls"):
        run_search(settings, False, None, lambda text: None)  # type: ignore[arg-type]
    assert not (settings.search_directory / "settings.yaml").exists()


def test_a_second_judge_of_ones_own_is_prepared_once(
    fresh: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*given: object) -> None:
        raise AssertionError("a search began")

    monkeypatch.setattr("stepfront.search.driver.search.ray_session", begin)
    settings = tiny_settings(fresh, "tracking.uri=null", "confirm.features.name=own_features:Once")
    folder = settings.supernet_directory / FOLDER
    run_training(settings, False, lambda report: None, lambda text: None)
    for _ in range(2):  # a search, and what continues it
        with pytest.raises(AssertionError, match="a search began"):
            run_search(settings, False, None, lambda text: None)  # type: ignore[arg-type]
    assert load_second_judge(load_problem(settings)).features.name == "own_features:Once"
    assert (folder / "own.txt").read_text() == "prepared "
    made = importlib.import_module("own_features").Once.made
    assert made == [folder]


class InFile(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)
        if self.way == "nan":
            return (rows + 2).log() * float("nan")
        if self.way == "rows":
            return rows.reshape(-1, 32)
        return rows + torch.rand_like(rows)


@pytest.mark.parametrize(
    ("way", "says"),
    [("nan", "are not finite"), ("rows", "gave 4 rows of 32 for 2 images"), ("noise", "differ between two calls")],
)
def test_a_feature_file_that_cannot_serve_is_one_line_of_train(
    way: str,
    says: str,
    untrained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.jit.script(InFile(way)).save(str(untrained / "mine.pt"))
    features = f"features={{name: mine, path: {untrained / 'mine.pt'}, examine: skip}}"
    settings = tiny_settings(untrained, "tracking.uri=null", features)
    write_json(untrained / "c.yaml", settings.model_dump(mode="json"))  # JSON is YAML
    code, _, error = call(monkeypatch, capsys, "train", str(untrained / "c.yaml"))
    assert code == 2
    assert error.strip().splitlines()[-1].startswith(f"stepfront: features 'mine' {says}")
