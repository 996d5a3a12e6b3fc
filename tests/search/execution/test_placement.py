"""How many workers fit on a machine."""

from __future__ import annotations

import pytest

from stepfront.errors import InputError
from stepfront.search.config import WorkerSettings, settings_from
from stepfront.search.execution.placement import _no_room, remote_options, slots_of_node, worker_resources


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


H100 = {"CPU": 8, "GPU": 1, "accelerator_type:H100": 1}


def test_workers_keep_to_their_type_of_gpu() -> None:
    workers = WorkerSettings(cpus=1, gpus=0.5, accelerator_type="H100")
    assert slots_of_node(H100, workers) == 2
    assert slots_of_node({"CPU": 8, "GPU": 1, "accelerator_type:A100": 1}, workers) == 0
    assert worker_resources(workers) == {"CPU": 1, "GPU": 0.5, "accelerator_type:H100": 0.001}
    assert worker_resources(WorkerSettings()) == {"CPU": 1}
    assert remote_options(workers) == {"num_cpus": 1, "num_gpus": 0.5, "accelerator_type": "H100"}
    assert remote_options(WorkerSettings()) == {"num_cpus": 1, "num_gpus": 0}


def test_ray_asks_for_the_same_resource() -> None:
    from ray._common.utils import resources_from_ray_options

    workers = WorkerSettings(cpus=1, gpus=0.5, accelerator_type="H100")
    assert resources_from_ray_options(remote_options(workers)) == worker_resources(workers)


def test_a_type_that_no_machine_has_is_one_line_that_names_those_there() -> None:
    workers = WorkerSettings(gpus=1, accelerator_type="H100")
    line = _no_room(workers, {"CPU": 8.0, "GPU": 2.0, "accelerator_type:A100": 2.0})
    assert line == "workers.accelerator_type H100: no machine of the cluster has that type; there: A100"
    assert "on one machine with H100; " in _no_room(workers, H100)
    with pytest.raises(InputError, match=r"accelerator_type H100 needs workers\.gpus above 0"):
        settings_from({"workers": {"accelerator_type": "H100"}})


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


def test_settings_of_earlier_searches_are_read() -> None:
    assert settings_from({"name": "old", "workers": {"ahead": "auto"}}).workers == WorkerSettings()
    assert settings_from({"name": "old", "workers": {"ahead": "never"}}).workers == WorkerSettings(packet_seconds=0)
    with pytest.raises(InputError, match=r"unknown setting 'workers\.ahead'"):
        settings_from({"name": "old", "workers": {"ahead": 3}})
