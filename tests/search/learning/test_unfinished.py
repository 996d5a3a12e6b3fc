"""Learning that is interrupted, and that does not help: what is kept, and what is said."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stepfront.files import write_text
from stepfront.search.learning.search_samplers import find_or_learn, sampler_task
from stepfront.search.learning.unfinished import (
    MOST_AT_ONCE,
    ProgressReport,
    Unfinished,
    own_folder,
    remaining_seconds,
    remove_left,
)
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.evaluator_parts import worker_parts
from stepfront.search.problem.load import load_problem
from stepfront.search.records.learnt_samplers import SamplerRecord
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.evaluator import Evaluator
from stepfront.trainers.sampler_learning.descent import Descent
from stepfront.trainers.sampler_learning.lesson import LearningProgress, Lesson
from tests.search.learning.test_search_samplers import search_settings


def counted(kind: type, name: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the calls of a method in a list of one number."""
    calls, method = [0], getattr(kind, name)

    def call(*given: Any) -> Any:
        calls[0] += 1
        return method(*given)

    monkeypatch.setattr(kind, name, call)
    return calls


def test_a_killed_learning_continues_to_the_same_sampler(searched_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = load_problem(search_settings(searched_copy.parents[1]))
    task = sampler_task(problem, worker_parts(problem, read_costs(searched_copy)), (1.0, 1.0), "network_times")
    whole = task.run()  # without a folder nothing is kept
    descend = Lesson.descend

    def killed(self: Lesson, descent: Descent, until: int, save: Any) -> None:
        def and_stop(descent: Descent) -> None:
            save(descent)
            raise KeyboardInterrupt

        descend(self, descent, until, and_stop)

    stages: list[str] = []
    with monkeypatch.context() as first:
        first.setattr(Lesson, "descend", killed)
        with pytest.raises(KeyboardInterrupt):
            find_or_learn(problem, [task], stages.append)
    folder = searched_copy.parent / "supernet" / "samplers" / f"{task.key}.unfinished"
    shown = Unfinished(folder).progress()
    assert shown is not None
    assert 0 < shown.done < 1
    assert shown.remaining > 0
    steps, scores = counted(Lesson, "step", monkeypatch), counted(Evaluator, "__call__", monkeypatch)
    record = find_or_learn(problem, [task], stages.append)[task.key]
    assert steps == [2]  # of four: the first two were done
    assert scores == [1]  # of the learnt sampler: the closed forms have theirs
    times = {"seconds": 0.0}
    assert replace(record, **times) == replace(whole, **times)
    assert not folder.exists()
    if record.chosen == "closed form":
        assert record.refusal in stages


@pytest.mark.parametrize("ends", [True, False])
def test_two_that_learn_the_same_sampler_at_once_leave_each_other_their_states(
    ends: bool, searched_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one, on a device of other numbers, ends or is killed while the first learns, which is killed then."""
    problem = load_problem(search_settings(searched_copy.parents[1]))
    task = sampler_task(problem, worker_parts(problem, read_costs(searched_copy)), (1.0, 1.0), "network_times")
    whole, descend, at_work = task.run(), Lesson.descend, list[str]()
    folder = searched_copy.parent / "supernet" / "samplers"

    def both(self: Lesson, descent: Descent, until: int, save: Any) -> None:
        at_work.append("first" if not at_work else "second")

        def first(descent: Descent) -> None:
            save(descent)
            if ends:
                find_or_learn(problem, [task], lambda text: None)
                (folder / f"{task.key}.json").unlink()  # the third one learns it, too
            else:
                with pytest.raises(KeyboardInterrupt):
                    find_or_learn(problem, [task], lambda text: None)
            raise KeyboardInterrupt

        def second(descent: Descent) -> None:
            with torch.no_grad():
                for tensor in descent.parameters.tensors().values():
                    tensor += 0.01
            save(descent)
            if not ends:
                raise KeyboardInterrupt

        descend(self, descent, until, first if at_work[-1] == "first" else second)

    with monkeypatch.context() as interleaved:
        interleaved.setattr(Lesson, "descend", both)
        with pytest.raises(KeyboardInterrupt):
            find_or_learn(problem, [task], lambda text: None)
    assert at_work[:2] == ["first", "second"]
    steps = counted(Lesson, "step", monkeypatch)
    record = find_or_learn(problem, [task], lambda text: None)[task.key]
    assert steps == [2]  # of four: the first one's two were done
    times = {"seconds": 0.0}
    assert replace(record, **times) == replace(whole, **times)
    assert not list(folder.glob(f"{task.key}.unfinished*"))  # also what the second one has left


def test_what_is_learnt_at_once_by_too_many_or_where_nothing_can_be_written_is_not_kept(tmp_path: Path) -> None:
    place = tmp_path / "key.unfinished"
    with contextlib.ExitStack() as held:
        folders = [held.enter_context(own_folder(place)).folder for _ in range(MOST_AT_ONCE + 1)]
        assert len(set(folders)) == len(folders)
        assert (folders[0], folders[-1]) == (place, None)
        Unfinished(folders[1]).score("own", lambda: 3.0)
        remove_left(place)
        assert len(list(tmp_path.iterdir())) == MOST_AT_ONCE  # all of them are in use
    assert list(tmp_path.iterdir()) == [folders[1]]  # the others have kept nothing
    remove_left(place)
    assert not list(tmp_path.iterdir())
    write_text(tmp_path / "file", "")
    with own_folder(tmp_path / "file" / "key.unfinished") as nowhere:
        assert nowhere.score("own", lambda: 3.0) == 3.0


@pytest.mark.parametrize(
    ("held_out", "fid", "said"),
    [
        (0.2, 4.0, "held-out distance 0.2 is not below 0.1"),
        (0.05, 4.0, ""),
        (0.05, 5.5, "FID 5.5 is not below 5"),
        (0.2, 5.5, "held-out distance 0.2 is not below 0.1 and its FID 5.5 is not below 5"),
    ],
)
def test_a_learnt_sampler_that_is_not_used_is_named_with_its_figures(held_out: float, fid: float, said: str) -> None:
    times = (900.0, 300.0)
    record = SamplerRecord(
        *(LearntSampler("ddim", times, times), (1.0, 1.0), "closed form" if said else "learnt", "solver"),
        *("ddim, edm grid", times, 5.0, 1, 1.0, 1.0, "root", 0.1, held_out, 0.1, fid),
    )
    assert record.refusal == (f"2x1.00 keeps ddim, edm grid: the learnt sampler's {said}" if said else "")


def progress(seconds: float, remaining: float) -> LearningProgress:
    return LearningProgress("learning", seconds / (seconds + remaining), seconds, remaining)


@pytest.mark.parametrize(
    ("running", "ended", "workers", "seconds"),
    [
        ([progress(30, 60)], [], 1, 60),
        ([progress(30, 60), progress(60, 30)], [], 2, 60),  # at once: as long as the longer one
        ([progress(30, 60), None, None], [90], 1, 240),  # those that wait take as long as the others
        ([progress(30, 60), None, None], [90], 2, 120),
        ([None, None], [40], 2, 40),
    ],
)
def test_the_remaining_time_counts_what_runs_and_what_waits(
    running: Sequence[LearningProgress | None], ended: Sequence[float], workers: int, seconds: float
) -> None:
    assert remaining_seconds(running, ended, workers) == pytest.approx(seconds)


def test_progress_is_reported_where_something_is_known(tmp_path: Path) -> None:
    stages: list[str] = []
    report = ProgressReport("learning samplers", stages.append, 1, every=0.0)
    one = Unfinished(tmp_path)
    report.look([one], [])
    assert stages == []
    one.report(progress(30, 120))
    report.look([one, Unfinished()], [])
    assert stages == ["learning samplers, 0 of 2 done, about 4 min 30 s left"]
