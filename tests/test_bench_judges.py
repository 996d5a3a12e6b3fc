"""The benchmark of judges: feature files that it can take, and a page that is written in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.blurred_plans import claims_are_made, read_section, wins
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
    update_page(page, pd.DataFrame(columns=["dataset"]), pd.DataFrame(), [])
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_a_measured_column_joins_the_others_of_its_dataset(tmp_path: Path) -> None:
    page = tmp_path / "judges.md"
    first = {"dataset": "digits", "features": "random", "measured": "a day", "participation ratio": 7.5, "noise": "1 2"}
    other = first | {"features": "pixels"}
    update_page(page, pd.DataFrame([first, other]), pd.DataFrame(), ["CIFAR-10"])
    update_page(page, pd.DataFrame([other | {"participation ratio": 9.5, "blur": "3"}]), pd.DataFrame(), [])
    sections = read_sections(page)
    assert list(sections) == ["digits"]
    assert "| pixels | 0 of 1 | 0 of 2 | 9.5 |  |" in page.read_text(encoding="utf-8")
    table = parse_table(sections["digits"])
    assert list(table.columns) == ["random", "pixels"]
    assert list(table["pixels"]) == ["a day", "9.5", "1 2", "3"]
    assert list(table["random"]) == ["a day", "7.5", "1 2", ""]


def supernet(steps: int, full: float, blurred: float) -> list[dict[str, object]]:
    """Return rows on blur of a supernet whose blurred images at half width score what is given on both judges."""
    scores = {"not blurred": full, "blur 0.2": blurred, "blur 0.4": blurred}
    half = {"not blurred": 9.0, "blur 0.2": blurred, "blur 0.4": 9.0}
    return [
        {"training steps": steps, "width": width, "judge": judge} | row
        for width, row in ((0.5, half), (1.0, scores))
        for judge in ("degradations", "random")
    ]


def test_a_blurred_plan_passes_on_a_poor_supernet_where_no_claim_is_made(tmp_path: Path) -> None:
    page = tmp_path / "judges.md"
    poor, good = pd.DataFrame(supernet(100, 5.0, 4.0)), pd.DataFrame(supernet(1500, 2.0, 3.0))
    assert (wins(poor, 100), claims_are_made(poor, 100)) == ((3, 4), False)
    assert (wins(good, 1500), claims_are_made(good, 1500)) == ((0, 4), True)
    update_page(page, pd.DataFrame(columns=["dataset"]), poor, [])
    update_page(page, pd.DataFrame(columns=["dataset"]), good, [])
    lines = read_sections(page)["A blurred plan"]
    assert "| 100 | 3 of 4 | refused | 0 |" in lines
    assert "| 1,500 | 0 of 4 | made | 0 |" in lines
    assert read_section(lines).equals(pd.concat([poor, good], ignore_index=True))


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
