"""The benchmark of judges: feature files that it can take, and a page that is written in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.cifar_resnet import CifarResNet, load_cifar_resnet, write_feature_file
from benchmarks.judges_page import parse_table, read_sections, update_page
from stepfront.errors import InputError
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.metrics.features import pack_features

PAGE = Path(__file__).resolve().parents[1] / "docs" / "judges.md"
WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar-resnets" / "resnet20-12fca82f.th"


def test_a_run_that_measures_nothing_leaves_the_page_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "judges.md"
    page.write_bytes(PAGE.read_bytes())
    update_page(page, pd.DataFrame(columns=["dataset"]), None, [])
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_a_measured_column_joins_the_others_of_its_dataset(tmp_path: Path) -> None:
    page = tmp_path / "judges.md"
    first = {"dataset": "digits", "features": "random", "measured": "a day", "D": 32, "noise": "1 2"}
    update_page(page, pd.DataFrame([first, first | {"features": "pixels", "D": 64}]), ["text"], ["CIFAR-10"])
    update_page(page, pd.DataFrame([first | {"features": "pixels", "D": 65, "blur": "3"}]), None, [])
    sections = read_sections(page)
    assert sections["A blurred plan"] == ["text"]
    table = parse_table(sections["digits"])
    assert list(table.columns) == ["random", "pixels"]
    assert list(table["pixels"]) == ["a day", "65", "1 2", "3"]
    assert list(table["random"]) == ["a day", "32", "1 2", ""]


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_a_feature_file_gives_the_rows_of_its_network(tmp_path: Path, suffix: str) -> None:
    network = CifarResNet(blocks=1).eval()
    write_feature_file(network, torch.zeros(2, 3, 16, 16), tmp_path / f"net{suffix}")
    settings = FeatureSettings(name="net", path=str(tmp_path / f"net{suffix}"))
    features = pack_features(settings, tmp_path).unpack(torch.device("cpu"))
    images = torch.linspace(-1, 1, 5 * 3 * 256).view(5, 3, 16, 16)
    levels = ((images + 1) * 127.5).round()
    with torch.inference_mode():
        expected = network(levels / 127.5 - 1).numpy()
    np.testing.assert_allclose(features(images), expected, rtol=1e-5, atol=1e-6)


def test_a_feature_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.pt \(TorchScript\) or \.pt2 \(torch\.export\)"):
        write_feature_file(CifarResNet(blocks=1).eval(), torch.zeros(2, 3, 16, 16), tmp_path / "net.onnx")


@pytest.mark.skipif(not WEIGHTS.exists(), reason="the weights of resnet20 are not here")
def test_published_weights_fit_the_network() -> None:
    network = load_cifar_resnet(WEIGHTS)
    assert len(network.layer1) == 3
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 64)
