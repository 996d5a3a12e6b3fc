"""Our own parts keep the contracts that a user's parts have to keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from stepfront.plugins import FAMILIES, FEATURES, FORMATS, PROXIES, SOLVERS
from stepfront.testing import (
    DatasetFormatConformance,
    FeaturesConformance,
    NetworkFamilyConformance,
    ProxyConformance,
    ScoreConformance,
    SolverConformance,
)
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.network_settings import DitSettings, NetworkSettings
from tests.trainers.data import test_cache
from tests.trainers.data.formats.test_readers import write_idx

ROOT = Path(__file__).resolve().parents[1]
GREY = np.random.RandomState(0).randint(0, 256, (24, 8, 8)).astype(np.uint8)
LABELS = np.arange(24) % 3


def test_every_part_of_ours_is_checked_below() -> None:
    slimmable = set(FAMILIES.ours) - {
        "unet2d_condition"
    }  # a module of diffusers: tests/trainers/interop/test_prompted.py
    assert {test.family for test in (TestUNet, TestSpectral, TestOde, TestDiT)} == slimmable
    assert {test.features for test in (TestClassifier, TestDegradations, TestRandom)} == set(FEATURES.ours)
    assert {"digits", "idx", "npz", *(name for name, _ in test_cache.FORMATS.values())} == set(FORMATS.ours)


class TestUNet(NetworkFamilyConformance):
    family = "unet"


class TestSpectral(NetworkFamilyConformance):
    family = "spectral"


class TestOde(NetworkFamilyConformance):
    family = "ode"


@pytest.mark.parametrize("slim", ["all", "inner"], scope="class")
class TestDiT(NetworkFamilyConformance):
    family = "dit"

    @pytest.fixture(autouse=True, scope="class")
    def _slim(self, request: pytest.FixtureRequest, slim: str) -> None:
        request.cls.slim = slim

    def settings(self, classes: int | None = None) -> NetworkSettings:
        dit = DitSettings(hidden=16, depth=2, heads=4, slim=self.slim)
        return NetworkSettings(family="dit", widths=(0.25, 0.5, 1.0), classes=classes, dit=dit)


@pytest.mark.parametrize("solver", SOLVERS.ours, scope="class")
class TestSolvers(SolverConformance):
    @pytest.fixture(autouse=True, scope="class")
    def _named(self, request: pytest.FixtureRequest, solver: str) -> None:
        request.cls.solver = solver


@pytest.mark.parametrize("proxy", PROXIES.ours, scope="class")
class TestProxies(ProxyConformance):
    @pytest.fixture(autouse=True, scope="class")
    def _named(self, request: pytest.FixtureRequest, proxy: str) -> None:
        request.cls.proxy = proxy


@pytest.mark.parametrize("score", ["perceptual_distance", "accuracy", "psnr"], scope="class")
class TestScoresOfTheExample(ScoreConformance):
    @pytest.fixture(autouse=True, scope="class")
    def _named(self, request: pytest.FixtureRequest, score: str) -> Iterator[None]:
        request.cls.score = f"own_scores:{score}"
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(ROOT / "examples")
            yield


class TestClassifier(FeaturesConformance):
    features = "classifier"

    def settings(self) -> FeatureSettings:
        return FeatureSettings(name="classifier", examine="skip")  # noise shows no labels, so nothing can be learnt


class TestDegradations(FeaturesConformance):
    features = "degradations"


class TestRandom(FeaturesConformance):
    features = "random"


class TestFeatureFile(FeaturesConformance):
    features = "pooled"

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "pooled.pt")
        pooled = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
        torch.jit.trace(pooled, torch.zeros(2, 1, 8, 8)).save(self.path)

    def settings(self) -> FeatureSettings:
        return FeatureSettings(name="pooled", path=self.path)


class TestDigits(DatasetFormatConformance):
    format = "digits"


class TestIdx(DatasetFormatConformance):
    format = "idx"

    def make(self, folder: Path) -> Path:
        write_idx(folder / "train-images-idx3-ubyte", GREY[:20])
        write_idx(folder / "train-labels-idx1-ubyte", LABELS[:20])
        return folder


class TestNpz(DatasetFormatConformance):
    format = "npz"

    def make(self, folder: Path) -> Path:
        folder.mkdir()
        np.savez(folder / "data.npz", train_images=GREY[:20], train_labels=LABELS[:20], val_images=GREY[20:])
        return folder / "data.npz"


@pytest.mark.parametrize("kind", test_cache.FORMATS, scope="class")
class TestGatheredFormats(DatasetFormatConformance):
    @pytest.fixture(autouse=True, scope="class")
    def _named(self, request: pytest.FixtureRequest, kind: str) -> None:
        request.cls.format, request.cls.maker = test_cache.FORMATS[kind]

    def make(self, folder: Path) -> Path:
        return type(self).maker(folder)
