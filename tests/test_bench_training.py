"""The benchmark of trainings: equal network FLOPs for fits, and the table of fits."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import plan_fits
from benchmarks.plan_fits import FITTED, SUPERNET, UNDIVIDED, fit_steps, fit_table, measure_fits
from benchmarks.samplers.judges import prepare_judge
from benchmarks.samplers.supernets import ensure_supernet, settings_of
from stepfront.trainers.data import load_data


def test_a_fit_has_the_network_flops_that_it_is_given() -> None:
    macs = {1.0: 120, 0.5: 30}
    # 8 calls at a half and 2 in full are 48 in the mean; three passes of 48 and the teacher's one of 120 are 264.
    assert fit_steps([0.5] * 8 + [1.0] * 2, macs, extra=264 / 3 * 50) == 50


def test_the_share_is_of_each_training_seed() -> None:
    fids = {SUPERNET: (9.0, 9.0), UNDIVIDED: (4.0, 8.0), FITTED: (2.0, 8.0)}
    rows = [
        {"plan": "2x1.00", "weights": name, "judge": "one", "noise": 0, "seed": seed, "fid": fid}
        for name, each in fids.items()
        for seed, fid in enumerate(each)
    ]
    (line,) = fit_table(pd.DataFrame(rows), "one").to_numpy().tolist()
    assert line == ["9.00", "6.00", "5.00", "0.75 ± 0.25"]


def test_each_plan_is_scored_on_the_weights_given_and_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_fits, "PLANS", ("1x0.50 1x1.00",))
    ensure_supernet("digits", tmp_path, tiny=True)
    settings = settings_of("digits", tiny=True)
    data = load_data(settings.data)
    prepare_judge("pixels", data, tmp_path, tmp_path, torch.device("cpu"))
    folders = {SUPERNET: tmp_path, UNDIVIDED: tmp_path}
    rows = measure_fits(settings, data, folders, 20, ("ddim", "trailing"), images=64)
    fids = rows.pivot(index="noise", columns="weights", values="fid")
    assert len(fids) == 3
    assert (fids[SUPERNET] == fids[UNDIVIDED]).all()
    assert (fids[SUPERNET] != fids[FITTED]).all()
