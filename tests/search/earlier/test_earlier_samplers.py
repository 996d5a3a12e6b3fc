"""Which learnt samplers of an earlier search learning can start from, and why others are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepfront.search.earlier.earlier_samplers import Carried, WantedSamplers, keep_samplers
from stepfront.search.records.learnt_samplers import SamplerRecord, write_search_samplers
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.schedule import NoiseSchedule, noise_schedule

TIMES = (950.0, 400.5, 20.0)
SAMPLER = LearntSampler("ddim", TIMES, (940.0, 400.5, 21.0))
RECORD = SamplerRecord(SAMPLER, (1.0,) * 3, "learnt", "solver", "ddim, edm grid", TIMES, 5.0, 9, 1.0, 1.0)
SCHEDULE = noise_schedule(DiffusionSettings())


def carried(
    place: Path, given: SamplerRecord = RECORD, theirs: NoiseSchedule = SCHEDULE, solvers: tuple[str, ...] = ()
) -> Carried:
    """Return what a search of two and three steps takes of a search with this record of three steps."""
    write_search_samplers(place / "search", {3: given})
    keep_samplers(place / "search", place / "kept")
    times = np.arange(theirs.steps, dtype=np.float64)
    wanted = WantedSamplers("solver", SCHEDULE, solvers)
    return wanted.carried("digits", place / "kept", times, theirs.half_log_snr(times), [3])


def test_a_sampler_is_taken_as_it_is_over_the_same_noise(tmp_path: Path) -> None:
    line = "learnt samplers of digits: those of 3 steps are further starts of learning"
    assert carried(tmp_path) == Carried({3: SAMPLER}, line)
    assert carried(tmp_path, solvers=("ddim", "unipc_2")).samplers == {3: SAMPLER}


def test_a_sampler_of_another_noise_schedule_keeps_its_log_snr(tmp_path: Path) -> None:
    theirs = noise_schedule(DiffusionSettings(steps=500, beta_last=0.04))
    sampler = LearntSampler("ddim", (400.0, 200.0, 10.0), (390.0, 200.0, 10.5), None, ((0.1, 0, 0),) * 3)
    found = carried(tmp_path, replace(RECORD, sampler=sampler), theirs).samplers[3]
    assert found.times != sampler.times
    for ours, before in ((found.times, sampler.times), (found.network_times, sampler.network_times)):
        np.testing.assert_allclose(SCHEDULE.half_log_snr(np.array(ours)), theirs.half_log_snr(np.array(before)))
    assert found.clean == sampler.clean
    (tmp_path / "cosine").mkdir()
    noisier = carried(
        tmp_path / "cosine",
        replace(RECORD, sampler=replace(SAMPLER, times=(998.0, *TIMES[1:]))),
        noise_schedule(DiffusionSettings(schedule="cosine")),
    )
    assert not noisier.samplers
    assert "none for 3 steps, since its times have half log-SNRs from -" in noisier.sentence


@pytest.mark.parametrize(
    ("changed", "solvers", "reason"),
    [
        ({"learnt": "network_times"}, (), "it has learnt network_times, and this search learns solver"),
        ({"chosen": "closed form"}, (), "the best solver and grid by hand were as good there"),
        ({}, ("unipc_2", "deis_2"), "it is learnt over ddim, and this search starts from unipc_2, deis_2"),
        ({"sampler": replace(SAMPLER, solver="ddpm")}, (), "its solver ddpm adds noise"),
        ({"sampler": replace(SAMPLER, solver="gone")}, (), "solver 'gone'"),
    ],
)
def test_a_sampler_that_does_not_fit_is_left_out_with_the_reason(
    tmp_path: Path, changed: dict[str, object], solvers: tuple[str, ...], reason: str
) -> None:
    found = carried(tmp_path, replace(RECORD, **changed), solvers=solvers)  # type: ignore[arg-type]
    assert not found.samplers
    assert found.sentence.startswith("learnt samplers of digits: none for 3 steps, since ")
    assert reason in found.sentence
    assert "\n" not in found.sentence


def test_other_numbers_of_steps_and_damaged_files_are_one_line(tmp_path: Path) -> None:
    carried(tmp_path)
    wanted, times = WantedSamplers("solver", SCHEDULE), np.arange(1000.0)
    found = wanted.carried("digits", tmp_path / "kept", times, SCHEDULE.half_log_snr(times), [2, 3, 5])
    assert found.sentence.endswith("; none for 2, 5 steps, since it has none of so many")
    (kept,) = (tmp_path / "search" / "samplers").glob(f"{SAMPLER.digest}-*.json")
    kept.write_text("{")
    keep_samplers(tmp_path / "search", tmp_path / "damaged")
    (tmp_path / "kept" / "samplers.json").write_text("[]")
    for place in ("damaged", "kept"):
        damaged = wanted.carried("digits", tmp_path / place, times, SCHEDULE.half_log_snr(times), [3])
        assert not damaged.samplers
        assert damaged.sentence.startswith("learnt samplers of digits: no start of learning, for they can't be read: ")
        assert "\n" not in damaged.sentence
    keep_samplers(tmp_path / "nothing", tmp_path / "none")
    none = wanted.carried("digits", tmp_path / "none", times, SCHEDULE.half_log_snr(times), [3])
    assert none == Carried({}, "")
