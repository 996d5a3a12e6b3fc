"""Check the order in which interrupted trials are handed out."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState, create_trial

from stepfront.search.study.trial_queue import ATTEMPT, TrialQueue, attempt_of


def running(number: int) -> FrozenTrial:
    trial = create_trial(state=TrialState.RUNNING)
    trial.number = number
    return trial


def test_interrupted_trials_are_handed_out_first_come_first_served() -> None:
    first, second, third = map(running, range(3))
    queue = TrialQueue([first, second])
    queue.put_back(third)
    assert queue.interrupted == 3
    assert [queue.next_interrupted() for _ in range(4)] == [first, second, third, None]


def test_a_trial_is_in_flight_until_it_ends_however_often_that_is_reported() -> None:
    queue, trial = TrialQueue(), running(4)
    queue.begin(trial)
    assert queue.in_flight == 1
    queue.end(trial)
    queue.end(trial)
    assert queue.in_flight == 0


def test_the_first_attempt_needs_no_attribute() -> None:
    trial = running(0)
    assert attempt_of(trial) == 1
    trial.user_attrs[ATTEMPT] = 3
    assert attempt_of(trial) == 3
