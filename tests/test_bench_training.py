"""The benchmark of trainings: equal network FLOPs for fits, and the table of fits."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmarks.samplers.judges import prepare_judge
from benchmarks.samplers.supernets import ensure_supernet, settings_of
from benchmarks.training.measure import JUDGES, NUMBERS_OF_STEPS, SCORES_FILE
from benchmarks.training.page import COMPARISON_FILE, Comparison, page, read_tables
from benchmarks.training.plan_fits import FITTED, SUPERNET, UNDIVIDED, fit_steps, fit_table, measure_fit
from benchmarks.training.trainings import (
    ALONE,
    COUNTS,
    EXTRACTED,
    FIRST,
    RULES,
    TAUGHT,
    UNDIVIDED_STAGE,
    stage_name,
    trainings,
    with_training,
)
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.trainers.baselines.plain_network import step_macs
from stepfront.trainers.data import load_data
from stepfront.trainers.inference.cost import count_width


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


def test_every_training_has_the_network_flops_of_the_first(tmp_path: Path) -> None:
    base, shape = settings_of("digits"), (1, 8)
    base = with_training(base, {"steps": 2000})
    total, extra = 2000 * step_macs(base, *shape), 800
    full = count_width(base.network, *shape, 1.0).macs
    spent: Counter[str] = Counter()
    for each in trainings(base, shape, extra, tmp_path):
        settings, passes = each.settings, full / 3 if each.name == TAUGHT else 0
        steps = settings.training.steps
        if each.adapt is not None:  # merged groups are those of the unmerged form
            steps = 0 if each.adapt.merge else each.adapt.groups.count * each.adapt.steps
        name = f"{each.name} {each.width}" if each.name == ALONE else each.name.split(":")[0]
        name = each.name if each.adapt is not None or each.name == UNDIVIDED_STAGE else name
        spent[name] += round(steps * (step_macs(settings, *shape) + passes))
    stages = {stage_name(count, False): 1 for count in COUNTS} | {UNDIVIDED_STAGE: 1}
    for name, macs in spent.items():
        expected = extra / 2000 * total if name in stages else 0 if name.endswith("merged") else total
        assert macs == pytest.approx(expected, rel=0.01), name
    assert {*RULES, TAUGHT, EXTRACTED, *stages} < spent.keys()


def test_a_page_has_all_scores_that_are_there_and_names_what_lacks_some(tmp_path: Path) -> None:
    comparison = Comparison("digits", 10, 5, 2, 64)
    place = tmp_path / "digits-10"
    (place / "seed-0" / "one").mkdir(parents=True)
    write_text(place / COMPARISON_FILE, json.dumps(asdict(comparison)))
    assert read_tables(tmp_path) == {}  # begun, and nothing is scored
    for seed, names in enumerate(((FIRST, ALONE), (FIRST,))):
        for name in names:
            rows = [
                {"training": name, "width": width, "steps": steps, "judge": judge, "noise": 0, "seed": seed}
                | {"fid": 4.0 if name == FIRST else 2.0, "loss": 0.1, "minutes": 1.0}
                for width in ((0.5, 1.0) if name == FIRST else (1.0,))
                for steps in NUMBERS_OF_STEPS
                for judge in JUDGES
            ]
            folder = place / f"seed-{seed}" / name
            folder.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_parquet(folder / SCORES_FILE)
    text = page(read_tables(tmp_path))
    assert "| sandwich | 4.00 ± 0.00 | 4.00 ± 0.00 |" in text
    assert "| alone |  | 2.00 |" in text
    missing = next(line for line in text.splitlines() if line.startswith("Without scores of all seeds"))
    assert f"`{ALONE}`;" in missing
    assert f"`{FIRST}`" not in missing


@pytest.mark.parametrize("change", [{"images": 32}, {"extra": 6}, {"device": "another"}])
def test_scores_that_were_made_otherwise_are_not_continued(change: dict[str, Any]) -> None:
    earlier = Comparison("digits", 10, 5, 2, 64)
    replace(earlier, seeds=3, processes=4).check_continues(earlier)
    with pytest.raises(InputError, match=f"begun with {next(iter(change))}"):
        replace(earlier, **change).check_continues(earlier)
