"""How many workers fit on a machine."""

from __future__ import annotations

import pytest

from stepfront.search.config import WorkerSettings
from stepfront.search.execution.placement import slots_of_node


@pytest.mark.parametrize(
    ("cpus", "gpus", "node", "slots"),
    [
        (1, 0, {"CPU": 4}, 4),
        (3, 0, {"CPU": 4}, 1),
        (8, 0, {"CPU": 4}, 0),
        (0.1, 0, {"CPU": 1}, 10),  # 1 // 0.1 is 9
        (1, 1, {"CPU": 8, "GPU": 1}, 1),
        (1, 0.5, {"CPU": 8, "GPU": 1}, 2),
        (4, 0.25, {"CPU": 8, "GPU": 1}, 2),
        (1, 0.4, {"CPU": 8, "GPU": 2}, 4),  # no share spans two GPUs
        (1, 2, {"CPU": 8, "GPU": 4}, 2),
        (1, 1, {"CPU": 8}, 0),
        (1, 0, {"memory": 1e9}, 0),  # a head without places
    ],
)
def test_workers_fit_whole(cpus: float, gpus: float, node: dict[str, float], slots: int) -> None:
    assert slots_of_node(node, WorkerSettings(cpus=cpus, gpus=gpus)) == slots


class _Trial:
    def __init__(self, trial_id: str, status: str) -> None:
        self.trial_id, self.status = trial_id, status


class _Controller:
    def __init__(self, *trials: _Trial) -> None:
        self.trials = trials

    def get_live_trials(self) -> set[_Trial]:
        return set(self.trials)


def test_a_free_worker_gets_a_new_plan_and_never_one_that_has_a_worker_coming() -> None:
    from stepfront.search.execution.tune_searcher import FirstFree

    scheduler, first, second = FirstFree(), _Trial("a_1", "PENDING"), _Trial("a_2", "PENDING")
    assert scheduler.choose_trial_to_run(_Controller(first, second, _Trial("a_0", "RUNNING"))) is first
    assert scheduler.choose_trial_to_run(_Controller(first, second)) is None, "both have a worker that starts"
    third = _Trial("a_3", "PENDING")
    assert scheduler.choose_trial_to_run(_Controller(first, second, third)) is third
