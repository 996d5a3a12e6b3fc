"""Noise of scores, on tables whose spreads are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stepfront.errors import InputError
from stepfront.search.config import EvaluationSettings
from stepfront.search.records.score_noise import (
    NOISE_FILE,
    ScoreNoise,
    read_score_noise,
    repeat_seeds,
    write_score_noise,
)

EVALUATION = EvaluationSettings()


def noise_of(log_fid: list[list[float]]) -> ScoreNoise:
    fid = tuple(tuple(map(float, row)) for row in np.exp(log_fid))
    return ScoreNoise(("20x1.00", "20x0.25"), repeat_seeds(EVALUATION), EVALUATION.images, fid, (4.0, 1.0))


def test_what_a_seed_does_to_all_plans_is_in_the_spread_and_not_in_the_difference() -> None:
    seeds = np.array([0.1, -0.2, 0.0, 0.1])
    noise = noise_of([list(seeds), list(1 + seeds)])
    assert noise.spread == pytest.approx(seeds.std(ddof=1))
    assert noise.difference == pytest.approx(0, abs=1e-12)


def test_the_difference_is_the_deviation_of_the_differences_seed_by_seed() -> None:
    first, second = np.array([0.1, -0.2, 0.0, 0.3]), np.array([1.0, 1.1, 1.3, 0.9])
    noise = noise_of([list(first), list(second)])
    assert noise.difference == pytest.approx((first - second).std(ddof=1))
    assert noise.spread == pytest.approx(np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2))
    assert noise.difference_of(0.25) == pytest.approx(noise.difference / 2)
    assert noise.threshold(1) == pytest.approx(3.1824 * noise.difference, rel=1e-4)  # Student's t of 3 degrees


def test_noise_exceeds_the_threshold_in_one_of_twenty_pairs_of_equal_plans() -> None:
    rng = np.random.default_rng(0)
    found = [
        abs(rng.normal(0, 0.1 * np.sqrt(2))) > noise_of(rng.normal(0, 0.1, (2, 4)).tolist()).threshold(1)
        for _ in range(2000)
    ]
    assert stats.binomtest(sum(found), 2000, 0.05).pvalue > 0.001


def test_repeats_are_written_and_read_and_others_than_the_settings_ask_for_are_not(tmp_path: Path) -> None:
    noise = noise_of([[0.0, 0.1, 0.2, 0.3], [1.0, 1.1, 1.2, 1.4]])
    assert read_score_noise(tmp_path, EVALUATION) is None
    write_score_noise(tmp_path, noise)
    assert read_score_noise(tmp_path, EVALUATION) == noise
    for other in ({"noise_repeats": 0}, {"noise_repeats": 5}, {"images": 64}, {"noise_seed": 1}):
        assert read_score_noise(tmp_path, EVALUATION.model_copy(update=other)) is None
    assert noise.network_gflops == 5.0 * 4 * 512
    assert noise.facts["images"] == 512


def test_a_damaged_file_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    noise = noise_of([[0.0] * 4, [1.0] * 4])
    write_score_noise(tmp_path, replace(noise, fid=noise.fid[:1]))
    with pytest.raises(InputError, match="delete it, and the search scores the repeats again"):
        read_score_noise(tmp_path, EVALUATION)
    (tmp_path / NOISE_FILE).write_text("{}")
    with pytest.raises(InputError, match="delete it"):
        read_score_noise(tmp_path, EVALUATION)


def test_seeds_of_repeats_are_neither_the_searchs_nor_those_of_confirmations() -> None:
    from stepfront.search.scoring.confirm import FIRST_SEED

    for seed in (0, 7):
        seeds = repeat_seeds(EvaluationSettings(noise_seed=seed, noise_repeats=4))
        assert len(set(seeds)) == 4
        assert not set(seeds) & {seed, *range(FIRST_SEED + seed, FIRST_SEED + seed + 1000)}
