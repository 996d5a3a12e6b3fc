"""The benchmark of trainings: equal network FLOPs for fits, and the table of fits."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from benchmarks.samplers.judges import prepare_judge
from benchmarks.samplers.supernets import ensure_supernet, settings_of
from benchmarks.training.plan_fits import FITTED, SUPERNET, UNDIVIDED, fit_steps, fit_table, measure_fit
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


def test_a_plan_is_scored_on_the_weights_given_and_on_its_own(tmp_path: Path) -> None:
    ensure_supernet("digits", tmp_path, tiny=True)
    settings = settings_of("digits", tiny=True)
    data = load_data(settings.data)
    prepare_judge("pixels", data, tmp_path, tmp_path, torch.device("cpu"))
    folders = {SUPERNET: tmp_path, UNDIVIDED: tmp_path}
    sampler, cpu = ("ddim", "trailing"), torch.device("cpu")
    rows = measure_fit("1x0.50 1x1.00", settings, data, folders, 20, sampler, 64, cpu)
    fids = rows.pivot(index="noise", columns="weights", values="fid")
    assert len(fids) == 3
    assert (fids[SUPERNET] == fids[UNDIVIDED]).all()
    assert (fids[SUPERNET] != fids[FITTED]).all()


def test_the_order_in_which_fits_end_does_not_matter() -> None:
    rows = pd.DataFrame(
        {"plan": plan, "weights": weights, "judge": "one", "noise": 0, "seed": seed, "fid": place + 10 * steps + seed}
        for steps, plan in ((1, "10x0.25"), (2, "10x0.50"))
        for place, weights in enumerate((SUPERNET, UNDIVIDED, FITTED))
        for seed in (0, 1)
    )
    expected = fit_table(rows, "one")
    assert list(expected[SUPERNET]) == ["10.50", "20.50"]
    for seed in range(5):
        assert fit_table(rows.sample(frac=1, random_state=seed), "one").equals(expected)
