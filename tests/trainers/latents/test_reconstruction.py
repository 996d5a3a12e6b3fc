"""The score of an autoencoder alone is kept in a file, and measured again where that is another version's."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stepfront.trainers.latents import reconstruction
from stepfront.trainers.latents.reconstruction import RECONSTRUCTION_FILE, Reconstruction, ensure_reconstruction


def test_a_score_of_another_version_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measured = [Reconstruction(float(n), 0.5, 30.0, 64, "random") for n in range(9)]
    monkeypatch.setattr(reconstruction, "_measure", lambda *given: measured.pop(0))
    data: Any = SimpleNamespace(latents=SimpleNamespace(space=SimpleNamespace(digest="a")), fingerprint="b")
    packed = SimpleNamespace(digest="c", name="random", unpack=lambda device: None)
    judge: Any = (packed, SimpleNamespace(content="d"))

    def score() -> float:
        found = ensure_reconstruction(data, judge, tmp_path, torch.device("cpu"))
        assert found is not None
        return found.fid

    assert (score(), score()) == (0, 0)
    path = tmp_path / RECONSTRUCTION_FILE
    content = json.loads(path.read_text())
    for other in ({**content, "ssim": 0.9}, {key: content[key] for key in content if key != "psnr"}):
        path.write_text(json.dumps(other))
        first = score()
        assert score() == first > 0
    assert "an unknown ssim" in caplog.text
    assert "no psnr" in caplog.text
