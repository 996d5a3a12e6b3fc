"""A search on learnt samplers: learnt once, kept beside the supernet, and run by every plan and baseline."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from torch import Tensor

from stepfront.dashboards.earlier import earlier_sentences
from stepfront.errors import InputError
from stepfront.files import write_json
from stepfront.search.config import RunSettings
from stepfront.search.driver.search import run_search
from stepfront.search.earlier.kept_tables import warm_settings
from stepfront.search.extending.extended_settings import extended_settings
from stepfront.search.learning import search_samplers
from stepfront.search.learning.chosen import SamplerToLearn
from stepfront.search.learning.search_samplers import samplers_of_search
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
from stepfront.search.records.run_directory import find_search, resume_settings
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.sampler_learning import learn
from stepfront.trainers.sampler_learning.distances import Distance, squared_error
from tests.search import at_once
from tests.search.at_once import workers_at_once
from tests.search.conftest import copy_of_search, tiny_settings

LEARNING = (
    "learning={pairs: 8, stopping_pairs: 4, held_out_pairs: 4, iterations: 4, batch: 4, check_every: 2, starts: 1, "
    "teacher_steps: 8, solvers: [ddim]}"
)


def test_a_lost_worker_is_told_from_a_task_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: Exception) -> None:
        def get(done: object) -> None:
            raise error

        monkeypatch.setattr(search_samplers.ray, "get", get)

    done: Any = None
    raising(ray.exceptions.WorkerCrashedError())
    with pytest.raises(search_samplers.LostWorkerError, match=r"^learning a sampler failed: its worker died$"):
        search_samplers._result(done)
    raising(ray.exceptions.RayTaskError("run", "", ValueError("not a width")))
    with pytest.raises(InputError, match="ValueError: not a width") as failed:
        search_samplers._result(done)
    assert not isinstance(failed.value, search_samplers.LostWorkerError)


class NoView:
    def update(self, report: object) -> None:
        pass


def search_settings(directory: Path, *overrides: str) -> RunSettings:
    own = ("sampler.times=learnt", LEARNING, "budget.trials=2", "space.skip=even")
    return tiny_settings(directory, "initial_plans={uniform: 2}", *own, *overrides)


@pytest.fixture(scope="module")
def begun(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return the directory of a search on learnt samplers, and what it said of its stages."""
    place, stages = tmp_path_factory.mktemp("learnt"), list[str]()
    shutil.copytree(trained / "tiny" / "supernet", place / "tiny" / "supernet")
    with workers_at_once():
        return run_search(search_settings(place), False, NoView(), stages.append), stages


def test_a_search_runs_on_learnt_samplers_and_the_next_one_reuses_them(begun: tuple[Path, list[str]]) -> None:
    (directory, stages), fresh = begun, begun[0].parents[1]
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
    assert samplers_of_search(load_problem(other), read_costs(directory), fresh / "new", stages.append) == records
    assert not any("learning samplers" in stage for stage in stages)
    facts = read_snapshot(directory).facts["learning"]
    assert {fact["steps"] for fact in facts} == {2, 4, 6}
    assert all(fact["tflops"] > 0 for fact in facts)
    own = [s for s in full_width_samplers(load_problem_of_search(find_search(directory)[1], directory)) if not s.name]
    assert {len(s.plan.widths) for s in own} == {2, 4, 6}
    assert all(s.plan.learnt is not None for s in own)


def test_learning_begins_with_the_samplers_of_an_earlier_search(
    begun: tuple[Path, list[str]], trained: Path, tmp_path: Path
) -> None:
    earlier = copy_of_search(begun[0], tmp_path / "before")
    records = read_search_samplers(earlier)
    times = (900.0, 500.0, 200.0, 20.0)
    other = replace(records[4], chosen="learnt", sampler=LearntSampler("ddim", times, times))
    write_search_samplers(earlier, {2: replace(records[2], chosen="closed form"), 4: other, 6: records[6]})
    shutil.copytree(trained / "tiny" / "supernet", tmp_path / "tiny" / "supernet")
    own, stages = search_settings(tmp_path, "sampler.steps=4", "space.stages=2"), list[str]()
    directory = run_search(warm_settings(own, [earlier]), False, NoView(), stages.append)
    (said,) = [stage for stage in stages if stage.startswith("learnt samplers of tiny")]
    assert said == (
        "learnt samplers of tiny: those of 4 steps are further starts of learning; none for 2 steps, since the best "
        "solver and grid by hand were as good there"
    )
    found = read_search_samplers(directory)
    assert [start["name"] for start in found[4].tried][1:] == ["the sampler of tiny"]
    assert found[4].carried in stages
    assert not any(start["earlier"] for start in found[2].tried)
    assert replace(found[2], seconds=0.0) == replace(records[2], seconds=0.0)  # as without the earlier search
    sentence = earlier_sentences(read_snapshot(directory).facts)[-1]
    assert sentence.startswith("Learning tried the samplers of tiny of 4 steps as starts, and took ")


@pytest.fixture
def elsewhere(begun: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that search on a machine whose devices learn other samplers, and that has none yet."""
    directory = copy_of_search(begun[0], tmp_path)
    shutil.rmtree(directory.parent / "supernet" / "samplers")
    learn = SamplerToLearn.run

    def learn_otherwise(task: SamplerToLearn) -> SamplerRecord:
        record = learn(task)
        told = tuple(time + 0.25 for time in record.sampler.network_times)
        return replace(record, sampler=replace(record.sampler, network_times=told))

    monkeypatch.setattr(SamplerToLearn, "run", learn_otherwise)
    return directory


def test_a_larger_space_keeps_the_samplers_so_far_and_learns_further_ones(elsewhere: Path) -> None:
    before = read_search_samplers(elsewhere)
    larger = extended_settings(elsewhere, 2, None, None, ["sampler.steps=8", "space.stages=4"])
    run_search(larger, False, NoView(), lambda text: None, extend=True)
    after = read_search_samplers(elsewhere)
    assert sorted(after) == [2, 4, 6, 8]
    assert {steps: after[steps] for steps in before} == before
    run_search(resume_settings(elsewhere), False, NoView(), lambda text: None)
    assert len(read_snapshot(elsewhere).trials) == 4


def test_a_search_that_is_refused_leaves_samplers_and_tables_as_they_were(elsewhere: Path) -> None:
    kept = ("samplers/index.json", "gap.npz", "settings.yaml", "costs.json")
    before = [(elsewhere / name).read_bytes() for name in kept]
    stages: list[str] = []
    with pytest.raises(InputError, match="this search was begun with"):
        run_search(search_settings(elsewhere.parents[1], "sampler.steps=3"), False, NoView(), stages.append)
    assert [(elsewhere / name).read_bytes() for name in kept] == before
    assert not any("samplers" in stage for stage in stages)  # refused before the long work


def test_learning_that_diverges_leaves_samplers_and_tables_as_they_were(
    begun: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_of_search(begun[0], tmp_path)

    def files() -> dict[Path, bytes]:
        """Samplers and tables; another sampler's learning may have left the folder of its state."""
        patterns = ("search/samplers/*", "supernet/samplers/*", "search/*.parquet")
        found = [path for pattern in patterns for path in directory.parent.glob(pattern)]
        return {path: path.read_bytes() for path in found if path.is_file()}

    before = files()
    assert len([file for file in before if file.parent.name == "samplers"]) >= 7  # of three, twice, and the index

    def not_a_number(name: str, targets: Tensor, features: object) -> Distance:
        return lambda images, others: squared_error(images, others) * float("nan")

    monkeypatch.setattr(learn, "make_distance", not_a_number)
    larger = extended_settings(directory, 2, None, None, ["sampler.steps=8", "space.stages=4"])
    with pytest.raises(InputError, match="learning diverged at iteration 0: the distance is nan"):
        run_search(larger, False, NoView(), lambda text: None, extend=True)
    assert files() == before


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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ray.exceptions.RayTaskError("run", "many\nlines", InputError("one line")).as_instanceof_cause(), "one line"),
        (
            ray.exceptions.RayTaskError("run", "x", RuntimeError("no memory\nmore")).as_instanceof_cause(),
            "learning a sampler failed: RuntimeError: no memory",
        ),
        (ray.exceptions.OutOfMemoryError("x"), "learning a sampler failed: its worker ran out of memory"),
        (ray.exceptions.WorkerCrashedError(), "learning a sampler failed: its worker died"),
    ],
)
def test_why_a_worker_has_not_learnt_is_one_line_without_its_traceback(
    monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    def fail(task: object) -> None:
        raise error

    monkeypatch.setattr(search_samplers.ray, "get", fail)
    with pytest.raises(InputError) as caught:
        search_samplers._result(ray.ObjectRef.nil())
    assert str(caught.value) == line


def test_the_weights_travel_to_the_workers_once(
    begun: tuple[Path, list[str]], fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, sizes = read_search_samplers(begun[0]), list[int]()

    def travelled(value: Any) -> Any:
        sizes.append(len(ray.cloudpickle.dumps(value)))
        return ray.cloudpickle.loads(ray.cloudpickle.dumps(value))

    monkeypatch.setattr(at_once, "travelled", travelled)
    monkeypatch.setattr(SamplerToLearn, "run", lambda task: records[len(task.widths)])
    problem = load_problem(search_settings(fresh))
    found = samplers_of_search(problem, read_costs(begun[0]), fresh / "new", lambda text: None)
    assert found == records
    weights = sum(array.nbytes for array in problem.weights.values())
    assert len([size for size in sizes if size > weights]) == 1
