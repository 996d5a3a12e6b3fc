"""How many workers fit on a machine."""

from __future__ import annotations

import pytest

from search.config import WorkerSettings
from search.placement import slots_of_node


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
