"""The benchmark of variants of a step: its answers in closed form, and a tiny run of it that continues."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from benchmarks.step_variants import CASES, main
from benchmarks.step_variants_page import Front, Measured, answer, difference, driver_answer, fid_table
from benchmarks.variants import KeptScores, Searched, network_tflops, problem_of, share_table, width_costs
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.variant import parse_variants


def measured(*shifts: float) -> Measured:
    """Return fronts over as many costs, on which variants are worse than widths by the shifts."""
    noise = [0.3, -0.1, 0.2]
    costs = [(1 + number) / len(shifts) for number in range(len(shifts))]
    widths: Front = {cost: ("4x0.50", cost, [10 + one for one in noise]) for cost in costs}
    variants: Front = {
        cost: ("1x0.50 3x0.50r", cost, [10 + shift + one for one, shift in zip(noise, [s] * 3, strict=True)])
        for cost, s in zip(costs, shifts, strict=True)
    }
    fronts = {"widths": widths, "variants": variants, "fewer steps": {1.0: ("2x1.00", 1.0, [9.0, 9.0, 9.0])}}
    return Measured("Made up", ["0.5", "0.5r"], 2.0, fronts, {"widths": 0.01, "variants": 0.011}, {1.0: 0.5}, 1.0)


def test_the_interval_is_students_over_seeds() -> None:
    found = difference([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.302653 / np.sqrt(3))
    assert found.behind is False
    assert difference([2.0, 2.1, 2.2], [1.0, 1.1, 1.2]).behind
    same = difference([1.0, 5.0], [1.0, 5.0])
    assert not same.ahead
    assert not same.behind


def test_the_question_is_no_cost_behind_and_half_ahead() -> None:
    assert answer(measured(-1, -1, 0, 0), "widths") == (
        "against widths: ahead at 2 of 4 costs, behind at 0 (as asked: no cost behind, half ahead)"
    )
    assert "behind at 1 (not as asked" in answer(measured(-1, -1, -1, 1), "widths")
    assert "ahead at 1 of 4 costs, behind at 0 (not as asked" in answer(measured(-1, 0, 0, 0), "widths")
    assert answer(measured(0, 0), "fewer steps") == "against fewer steps: ahead at 0 of 1 costs, behind at 1"


def test_searches_are_compared_where_their_networks_have_computed_as_much() -> None:
    widest = Plan.of([0.9, 0.5], parse_variants("2x1.00"), "ddim")
    cheap = Searched([widest] * 4, np.array([[4.0, 1.0], [3.0, 1.0], [2.0, 1.0], [1.0, 1.0]]))
    dear = Searched([widest] * 2, np.array([[4.0, 1.0], [1.0, 5.0]]))
    assert network_tflops(cheap, 500).tolist() == [0.5, 1.0, 1.5, 2.0]
    table = share_table({"cheap": [cheap], "dear": [dear]}, [2], 500).set_index("variant")
    # Half and all of the 2 TFLOPs of the cheap one; the dear one's second evaluation would be beyond them.
    cheap_at_half = table.loc["cheap", "at 1 network TFLOPs"]
    assert cheap_at_half == table.loc["cheap", "2"]
    assert table.loc["cheap", "at 2 network TFLOPs"] == "1.000"
    assert table.loc["dear", "at 1 network TFLOPs"] == table.loc["dear", "at 2 network TFLOPs"] < cheap_at_half
    assert table.loc["dear", "network TFLOPs at the end"] == "3.00"


def test_results_are_kept_as_json() -> None:
    one = measured(-1, 0)
    again = Measured.of_content(json.loads(json.dumps(one.content())))
    assert fid_table(again) == fid_table(one)
    assert again == one


def write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name, count in (("train", 60), ("t10k", 20)):
        images, labels = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        head = struct.pack(">4i", 2051, count, 8, 8)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
        head = struct.pack(">2i", 2049, count)
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels.tobytes()))


def test_a_tiny_run_writes_the_page_and_continues(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    sizes = "--case conditional --size 8 --limit 60 --base 8 --training-steps 2 --held-out-images 8 --features random"
    counts = "--steps 3 --trials 6 --images 16 --held-out 16 --seeds 2 --replays 1"
    places = ["--data", str(tmp_path / "images"), "--runs", str(tmp_path / "runs"), "--docs", str(tmp_path)]
    main([*places, *sizes.split(), *counts.split()])
    page = tmp_path / "bench-variants.md"
    text = page.read_text(encoding="utf-8")
    assert CASES["conditional"].title in text
    assert "against guidance_interval: ahead at" in text
    assert next(line.count("±") for line in text.splitlines() if line.startswith("| 100%")) == 5
    scores = next((tmp_path / "runs").glob("fid-*.jsonl"))
    before = scores.read_text(encoding="utf-8")
    page.unlink()
    main([*places, *sizes.split(), *counts.split()])
    assert page.read_text(encoding="utf-8") == text
    assert scores.read_text(encoding="utf-8") == before
    run = next((tmp_path / "runs").glob("conditional-*"))
    problem = problem_of(run, tmp_path / "here", ["space.variants=[1.0, 1.0r, 1.0u]"])
    costs = width_costs(problem)
    plans = [problem.plan(parse_variants(text)) for text in ("2x1.00", "1x1.00 1x1.00r", "2x1.00u")]
    assert len({plan.widths for plan in plans}) == 1
    score = KeptScores(problem, costs, tmp_path)
    found = [score(plan, 16, 0) for plan in plans]
    kept = next(tmp_path.glob("fid-*.jsonl")).read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)[0] for line in kept}) == 3, "the key of a kept score has the marks"
    assert [KeptScores(problem, costs, tmp_path)(plan, 16, 0) for plan in plans] == found
    assert costs[1.0].step_gflops == 2 * 2e-9 * costs[1.0].macs, "guidance makes two calls"


def test_the_drivers_time_is_held_against_what_was_asked() -> None:
    assert driver_answer({"widths": 0.0236, "variants": 0.0267}).endswith(
        "23.6 ms for widths alone, 26.7 ms with variants, a ratio of 1.13 (not as asked: at most 1.10)."
    )
    assert driver_answer({"widths": 0.02, "variants": 0.021}).endswith("1.05 (as asked: at most 1.10).")
