"""Fits that fail: a diverging loss, a device without memory; the other points and the search go on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stepfront.errors import InputError
from stepfront.search.driver import fit
from stepfront.search.driver.fit import fit_points
from stepfront.search.driver.search import run_search
from stepfront.search.learning.chosen import SamplerToLearn
from stepfront.search.records.learnt_samplers import SamplerRecord
from stepfront.tables.search_tables import read_snapshot
from tests.search.conftest import Silent, tiny_settings
from tests.search.learning.test_search_samplers import LEARNING


def test_a_point_that_cannot_be_fitted_is_left_out_and_the_search_goes_on(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, failed, stages = SamplerToLearn.run, list[SamplerToLearn](), list[str]()

    def run(task: SamplerToLearn) -> SamplerRecord:
        if not failed or task.key == failed[0].key:
            failed.append(task)
            raise RuntimeError("CUDA out of memory\nTried to allocate 2 GiB")
        return learn(task)

    monkeypatch.setattr(SamplerToLearn, "run", run)
    own = (f"supernet={trained / 'tiny' / 'supernet'}", "sampler.grid=leading", "budget.trials=8")
    fits = (LEARNING, "initial_plans={uniform: 3}", "fit={every: 1, points: 2}")
    directory = run_search(tiny_settings(tmp_path, *own, *fits), False, Silent(), stages.append)
    snapshot = read_snapshot(directory)
    assert len(snapshot.trials) == 8
    (line,) = [stage for stage in stages if "no sampler is fitted" in stage]
    assert line.endswith("learning a sampler failed: RuntimeError: CUDA out of memory")
    (pause,) = snapshot.facts["fit_rounds"]
    number = int(re.findall(r"trial (\d+)", line)[0])
    assert number in pause["points"]
    (learnt,) = snapshot.facts["learning"]  # of the other point
    assert pause["tflops"] == pytest.approx(learnt["tflops"])
    monkeypatch.setattr(fit, "_points", lambda front, point: [number])
    with pytest.raises(InputError, match=r"^learning a sampler failed: RuntimeError: CUDA out of memory$"):
        fit_points(directory, str(number), lambda text: None)
    monkeypatch.setattr(fit, "_points", lambda front, point: pause["points"])
    (done,) = fit_points(directory, "front", lambda text: None)
    assert done.trial in {*pause["points"]} - {number}
