"""A search on learnt samplers: learnt once, kept beside the supernet, and run by every plan and baseline."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from stepfront.errors import InputError
from stepfront.files import write_json
from stepfront.search.config import RunSettings
from stepfront.search.driver.search import run_search
from stepfront.search.learning import search_samplers
from stepfront.search.learning.search_samplers import ensure_samplers
from stepfront.search.problem.baseline_plans import full_width_samplers
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.load import load_problem, load_problem_of_search
from stepfront.search.records.learnt_samplers import (
    SamplerRecord,
    read_records,
    read_samplers,
    read_search_samplers,
    write_search_samplers,
)
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from tests.search.conftest import tiny_settings

LEARNING = (
    "learning={pairs: 8, stopping_pairs: 4, held_out_pairs: 4, iterations: 4, batch: 4, check_every: 2, starts: 1, "
    "teacher_steps: 8, solvers: [ddim]}"
)


class NoView:
    def update(self, report: object) -> None:
        pass


def search_settings(directory: Path, *overrides: str) -> RunSettings:
    own = ("sampler.times=learnt", LEARNING, "budget.trials=2", "space.skip=even")
    return tiny_settings(directory, "initial_plans={uniform: 2}", *own, *overrides)


def test_a_search_runs_on_learnt_samplers_and_the_next_one_reuses_them(fresh: Path) -> None:
    stages: list[str] = []
    directory = run_search(search_settings(fresh), False, NoView(), stages.append)
    records = read_search_samplers(directory)
    assert sorted(records) == [2, 4, 6]  # the numbers of steps of three even stages
    samplers = read_samplers(directory)
    trials = read_snapshot(directory).trials
    for _, row in trials.iterrows():
        plan = plan_of_row(row, samplers)
        assert plan.learnt == records[len(plan.widths)].sampler
        assert row["state"] == "complete"
    assert any("learning samplers" in stage for stage in stages)
    stages.clear()
    other = search_settings(fresh, "name=other", f"supernet={fresh / 'tiny' / 'supernet'}", "search_seed=5")
    ensure_samplers(load_problem(other), read_costs(directory), other.search_directory, stages.append)
    assert read_search_samplers(other.search_directory) == records
    assert not any("learning samplers" in stage for stage in stages)
    facts = read_snapshot(directory).facts["learning"]
    assert {fact["steps"] for fact in facts} == {2, 4, 6}
    assert all(fact["tflops"] > 0 for fact in facts)
    own = [s for s in full_width_samplers(load_problem_of_search(find_search(directory)[1], directory)) if not s.name]
    assert {len(s.plan.widths) for s in own} == {2, 4, 6}
    assert all(s.plan.learnt is not None for s in own)


def test_a_missing_sampler_is_named(tmp_path: Path) -> None:
    sampler = LearntSampler("ddim", (900.0, 3.0), (900.0, 3.0))
    figures = {"train": 1.0, "held_out": 1.0, "start_held_out": 2.0, "fid": 1.0, "start_fid": 2.0}
    record = SamplerRecord(
        *(sampler, (1.0, 1.0), "learnt", "times", "ddim", sampler.times),
        distance="root",
        calls=9,
        tflops=1.0,
        seconds=1.0,
        **figures,
    )
    write_search_samplers(tmp_path, {2: record})
    assert read_search_samplers(tmp_path) == {2: record}
    assert list(read_records(tmp_path).values()) == [record]
    (kept,) = tmp_path.glob(f"samplers/{sampler.digest}-*.json")
    write_json(tmp_path / "samplers" / "index.json", {"by_steps": {"3": kept.stem}})
    with pytest.raises(InputError, match=f"{kept.stem} .* has 2 steps, not 3"):
        read_search_samplers(tmp_path)
    good = kept.read_text()
    kept.write_text(good.replace("900.0", "901.0"))
    with pytest.raises(InputError, match=f"{kept.name} holds another sampler than its name says"):
        read_records(tmp_path)
    kept.write_text(good.replace("900.0", "1.0"))
    with pytest.raises(InputError, match=f"{kept.name}: .*times must decrease"):
        read_records(tmp_path)
    kept.unlink()
    with pytest.raises(InputError, match=f"{sampler.digest}.* is missing"):
        read_search_samplers(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("space.skip=true", "space.skip: true can't use it"),
        ("learning.teacher_steps=5", "teacher_steps 5 is below sampler.steps 6"),
    ],
)
def test_settings_that_do_not_fit_a_learnt_sampler_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_settings(tmp_path, "sampler.solver=learnt", override)


def test_fits_in_a_search_need_a_teacher_of_enough_steps(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"teacher_steps 5 is below sampler\.steps 6"):
        tiny_settings(tmp_path, "fit.every=2", "learning.teacher_steps=5")


def test_what_a_worker_refuses_is_one_line_without_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(task: object) -> None:
        raise ray.exceptions.RayTaskError("run", "many\nlines", InputError("one line")).as_instanceof_cause()

    monkeypatch.setattr(search_samplers.ray, "get", fail)
    with pytest.raises(InputError) as caught:
        search_samplers._result(ray.ObjectRef.nil())
    assert str(caught.value) == "one line"
