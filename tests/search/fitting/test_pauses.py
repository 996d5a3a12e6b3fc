"""Fits inside a search: when it pauses for them, what they count for, and that an interrupted one ends the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stepfront.search.algorithm.trials import GENOME, Proposal, is_fit
from stepfront.search.config import FitSettings
from stepfront.search.fitting.pauses import FitPauses
from stepfront.search.fitting.plans import Fit, Fitting
from stepfront.search.records.learnt_samplers import SamplerRecord
from stepfront.search.study.budget import Limits, usage_of_study
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.views import progress_table
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.evaluation import Evaluation
from tests.search.study.test_ledger import ENCODING, make_ledger, outcomes, run

TFLOPS = 0.5
GENERATION = 6


class KilledError(Exception):
    """The driver dies."""


class Learner(Fitting):
    """Fitting whose samplers are learnt at once, and halve the FID of even trials; the others keep their own."""

    dies_at: int = -1

    def fit(self, numbers: Sequence[int]) -> list[Fit]:
        fits = []
        for number in numbers:
            trial = self.ledger.trials[number]
            sampler = LearntSampler("ddim", (900.0 - number,), (900.0 - number,))
            record: Any = SimpleNamespace(tflops=TFLOPS, sampler=sampler)
            if number % 2 == 0:
                if number == self.dies_at:
                    raise KilledError
                proposal = Proposal(trial.user_attrs[GENOME], "fit", (number,), sampler.digest)
                self.ledger.add_fit(proposal, Evaluation(trial.values[0] / 2, trial.values[1], 1.0, "made", 100, 0))
            fits.append(Fit(number, trial.values[0], record))
        return fits


def search(ledger: Ledger, every: int = 1, points: int = 3, dies_at: int = -1) -> Ledger:
    """Search and pause as driver/search.py does."""
    problem: Any = SimpleNamespace(
        plan_of=lambda genome: SimpleNamespace(widths=ENCODING.unpack(genome) + 1.0, marks=())
    )
    learner = Learner(problem, {}, Path(), ledger, lambda text: None)
    object.__setattr__(learner, "dies_at", dies_at)
    pauses = FitPauses(learner, FitSettings(every=every, points=points), GENERATION)
    pauses.schedule()
    while True:
        if not pauses.due:
            run(ledger)
        if not pauses.due:
            return ledger
        pauses.run()
        pauses.schedule()


def test_a_search_pauses_every_so_many_generations_and_fits_within_its_budget(tmp_path: Path) -> None:
    ledger = search(make_ledger("sqlite", tmp_path), every=2)
    rounds = ledger.fit_rounds.rounds
    assert [one.at for one in rounds] == [12, 24]  # the fits of the first pause are not counted as searched
    assert len(ledger.trials) == ledger.finished == 30  # and count in the budget of trials
    fits = [trial for trial in ledger.trials if is_fit(trial)]
    assert fits
    assert {trial.user_attrs["parents"][0] for trial in fits} <= {n for one in rounds for n in one.points}
    assert not {n for one in rounds for n in one.points} & {trial.number for trial in fits}
    assert len(rounds[0].points) == 3
    assert not set(rounds[0].points) & set(rounds[1].points)
    progress = progress_table(ledger).set_index("trial")["network_gflops"]
    evaluated = np.cumsum([trial.values[1] * 100 for trial in ledger.complete])
    learnt = (progress - evaluated).to_numpy() / 1000 / TFLOPS  # fits so far, by complete trial
    np.testing.assert_allclose(learnt[:12], 0, atol=1e-9)
    np.testing.assert_allclose(learnt[12:24], 3)
    np.testing.assert_allclose(learnt[-1], 3 + len(rounds[1].points))
    learning = TFLOPS * sum(len(one.points) for one in rounds)  # also of those that kept their samplers
    scoring = sum(trial.values[1] * 100 for trial in ledger.trials) / 1000
    assert ledger.budget.network_tflops() == pytest.approx(scoring + learning)
    ledger.close()
    assert usage_of_study(None, tmp_path).tflops == pytest.approx(scoring + learning)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_search_that_is_killed_in_a_pause_ends_with_the_same_trials(kind: str, tmp_path: Path) -> None:
    whole = search(make_ledger(kind, tmp_path / "whole"))
    parents = [trial.user_attrs["parents"][0] for trial in whole.trials if is_fit(trial)]
    assert len(parents) > 2
    for dies_at in parents[:3]:
        place = tmp_path / f"dies-{dies_at}"
        with pytest.raises(KilledError):
            search(make_ledger(kind, place), dies_at=dies_at)
        again = make_ledger(kind, place)
        assert again.fit_rounds.under_way is not None
        assert outcomes(search(again)) == outcomes(whole)
        assert again.fit_rounds.rounds == whole.fit_rounds.rounds


def test_a_fit_that_was_asked_and_not_recorded_is_recorded_under_its_number(tmp_path: Path) -> None:
    ledger = run(make_ledger("sqlite", tmp_path), most=2)
    proposal = Proposal(ledger.trials[0].user_attrs[GENOME], "fit", (0,), "digest")
    ledger._add(proposal)  # and the driver died
    ledger.close()
    again = make_ledger("sqlite", tmp_path)
    assert again.interrupted == 0  # workers know genomes alone, and would score it on another sampler
    evaluation = Evaluation(1.0, 2.0, 1.0, "made", 100, 0)
    assert again.add_fit(proposal, evaluation) == again.add_fit(proposal, evaluation) == 2
    assert (again.finished, len(again.trials), again.searched) == (3, 3, 2)


class Scorer(Fitting):
    """Fitting whose samplers are learnt at once; scores are those of `evaluations`, in their order."""

    evaluations: list[Evaluation]

    def _learnt(self, numbers: Sequence[int]) -> dict[int, SamplerRecord]:
        records: Any = {n: SimpleNamespace(tflops=0.0, sampler=sampler_of(n), improves=True) for n in numbers}
        return dict(records)

    def _evaluations(self, records: Sequence[SamplerRecord]) -> list[Evaluation]:
        return [self.evaluations.pop(0) for _ in records]


def sampler_of(number: int) -> LearntSampler:
    return LearntSampler("ddim", (900.0 - number,), (900.0 - number,))


def evaluation(fid: float, error: str = "") -> Evaluation:
    return Evaluation(fid, 2.0, 1.0, "made", 100, 0, error=error)


def scorer(ledger: Ledger, stages: list[str], *evaluations: Evaluation) -> Scorer:
    problem: Any = SimpleNamespace(plan_of=lambda genome: SimpleNamespace(widths=ENCODING.unpack(genome), marks=()))
    fitting = Scorer(problem, {}, Path(), ledger, stages.append)
    object.__setattr__(fitting, "evaluations", list(evaluations))
    return fitting


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_fit_that_failed_for_a_passing_reason_is_scored_again_by_the_next_call(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepfront.search.fitting.plans.write_sampler", lambda directory, record: None)
    ledger, stages = run(make_ledger(kind, tmp_path), most=1), list[str]()
    lost = scorer(ledger, stages, evaluation(float("nan"), "its worker died"))
    (first,) = lost.fit([0])
    assert (first.new_trial, lost.lost) == (1, {0: "its worker died"})
    assert np.isnan(first.new_fid)
    ledger.close()
    again = make_ledger(kind, tmp_path)  # by another call of stepfront fit
    (second,) = scorer(again, stages, evaluation(3.0)).fit([0])
    assert (second.new_trial, second.new_fid, again.failed) == (2, 3.0, 1)
    assert "trial 1 failed (its worker died); its plan is scored again, as a new trial" in stages
    (third,) = scorer(again, stages).fit([0])  # it has a score, and is not scored a third time
    assert (third.new_trial, third.new_fid, len(again.trials)) == (2, 3.0, 3)


@pytest.mark.parametrize("error", ["", "InputError: no such file (features.py:7)"])
def test_a_fit_that_would_fail_again_stays_failed_and_is_named(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepfront.search.fitting.plans.write_sampler", lambda directory, record: None)
    ledger, stages = run(make_ledger("sqlite", tmp_path), most=1), list[str]()
    fitting = scorer(ledger, stages, evaluation(float("nan"), error))
    assert [fitting.fit([0])[0].new_trial for _ in range(2)] == [1, 1]
    assert not fitting.lost
    reason = error or "not finite: fid nan, gflops 2.0"
    assert stages[1:] == [f"the fit of trial 0 failed and is given up: {reason}"] * 2


def test_a_fit_that_fails_each_time_is_given_up_after_two_tries_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, stages, fit = list[int](), list[str](), Learner.fit

    def loses_one(self: Learner, numbers: Sequence[int]) -> list[Fit]:
        object.__setattr__(self, "stage", stages.append)
        self.lost.clear()
        first = tried[0] if tried else numbers[0]
        if first in numbers:
            tried.append(first)
            self.lost[first] = "learning a sampler failed: its worker died"
        return fit(self, [number for number in numbers if number != first])

    monkeypatch.setattr(Learner, "fit", loses_one)
    # The cheapest point stays on the front, so that every pause would fit it again.
    monkeypatch.setattr(
        FitPauses, "_points", lambda pauses: sorted({0, 1, 2} - pauses.fitting.ledger.fit_rounds.points)
    )
    ledger = search(make_ledger("sqlite", tmp_path))
    assert len(ledger.fit_rounds.rounds) > 3
    assert tried == [0, 0]
    assert [one.lost for one in ledger.fit_rounds.rounds[:3]] == [(0,), (0,), ()]
    reason = "learning a sampler failed: its worker died"
    assert stages == [
        f"the fit of trial 0 failed and is tried again in a later pause: {reason}",
        f"the fit of trial 0 failed and is given up, after 2 tries: {reason}",
    ]
    ledger.close()
    again = make_ledger("sqlite", tmp_path).fit_rounds  # a resumed search knows it
    assert again.tries(0) == 2
    assert 0 in again.points


def test_points_whose_worker_was_lost_are_fitted_in_the_next_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[int] = []
    fit = Learner.fit

    def loses_its_first(self: Learner, numbers: Sequence[int]) -> list[Fit]:
        self.lost.clear()
        if not lost:
            lost.append(numbers[0])
            self.lost[numbers[0]] = "its worker died"
        return fit(self, [number for number in numbers if number not in self.lost])

    monkeypatch.setattr(Learner, "fit", loses_its_first)
    kept = make_ledger("sqlite", tmp_path)
    first, *later = search(kept, every=1, points=3).fit_rounds.rounds
    assert lost[0] not in first.points
    assert len(first.points) == 2
    assert sum(lost[0] in one.points for one in later) <= 1
    front = [one.number for one in kept.complete]
    assert lost[0] in front
    kept.close()
    assert make_ledger("sqlite", tmp_path).fit_rounds.rounds == [first, *later]


def test_a_fit_without_a_score_is_a_failed_trial_and_waits_for_no_worker(tmp_path: Path) -> None:
    ledger = run(make_ledger("sqlite", tmp_path), most=1)
    proposal = Proposal(ledger.trials[0].user_attrs[GENOME], "fit", (0,), "digest")
    number = ledger.add_fit(proposal, Evaluation(float("nan"), 2.0, 1.0, "made", 100, 0, error="its worker died"))
    assert (ledger.failed, ledger.interrupted) == (1, 0)
    assert ledger.trials[number].user_attrs["result"]["error"] == "its worker died"


def test_without_the_setting_a_search_is_what_it_was(tmp_path: Path) -> None:
    assert outcomes(search(make_ledger("memory", tmp_path), every=0)) == outcomes(run(make_ledger("memory", tmp_path)))


def test_no_pause_begins_where_the_budget_ends(tmp_path: Path) -> None:
    ledger = search(make_ledger("memory", tmp_path, limits=Limits(trials=13)), every=2, points=5)
    assert len(ledger.fit_rounds.rounds[0].points) == 1  # one trial was left
    assert ledger.finished == 13 or ledger.searched == 13
    assert len(search(make_ledger("memory", tmp_path, limits=Limits(trials=12)), every=2).fit_rounds.rounds) == 0


def test_the_minutes_of_a_budget_are_those_of_pauses_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now, fit = [100.0], Learner.fit

    def takes_an_hour(self: Learner, numbers: Sequence[int]) -> list[Fit]:
        now[0] += 3600
        return fit(self, numbers)

    monkeypatch.setattr("stepfront.search.study.budget.time.monotonic", lambda: now[0])
    monkeypatch.setattr(Learner, "fit", takes_an_hour)
    ledger = search(make_ledger("memory", tmp_path, limits=Limits(seconds=3600)), every=2)
    assert [one.at for one in ledger.fit_rounds.rounds] == [12]
    assert (ledger.searched, ledger.elapsed) == (12, 3600)


@pytest.mark.parametrize(
    ("chosen", "own_fid", "improves"),
    [
        ("closed form", 5.0, True),  # better than the plan's own, though nothing was learnt
        ("closed form", 4.0, False),  # it is the plan's own
        ("learnt", 3.5, True),
        ("learnt", 2.5, False),  # the plan's own sampler was learnt, too, and is better
        ("closed form", None, True),
    ],
)
def test_a_fit_has_to_beat_the_sampler_that_the_plan_runs_on(
    chosen: str, own_fid: float | None, improves: bool
) -> None:
    sampler = LearntSampler("ddim", (900.0,), (900.0,))
    figures = {"train": 1.0, "held_out": 1.0, "start_held_out": 2.0, "fid": 3.0, "start_fid": 4.0}
    record = SamplerRecord(
        *(sampler, (0.5,), chosen, "solver", "ddim, leading grid", sampler.times),
        calls=9,
        tflops=1.0,
        seconds=1.0,
        own_fid=own_fid,
        **figures,
    )
    assert record.improves is improves
    assert SamplerRecord.from_json(record.to_json()) == record
