"""Threads are chosen by a short measurement."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from stepfront.trainers import devices

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [({4: 1.0, 2: 0.9, 1: 0.8}, 4), ({4: 10.0, 2: 1.2, 1: 1.0}, 1), ({4: 9.0, 2: 2.0, 1: 3.0}, 2)],
)
def test_fewer_threads_are_used_where_all_cores_are_clearly_slower(
    seconds: dict[int, float], chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices, "_seconds", seconds.__getitem__)
    said: list[str] = []
    devices.ThreadWatch(CPU, said.append).look()
    assert torch.get_num_threads() == chosen
    assert not said if chosen == 4 else f"so {chosen} of 4 are used" in said[0]


def test_a_number_of_threads_that_is_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(devices, "_seconds", lambda threads: pytest.fail("it was measured"))
    devices.ThreadWatch(CPU, lambda line: pytest.fail(line)).look()
    assert torch.get_num_threads() == 4


def test_threads_are_chosen_again_where_other_programs_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    now = [0.0]
    monkeypatch.setattr(devices.time, "monotonic", lambda: now[0])
    busy = {4: 1.0, 2: 1.0, 1: 1.0}
    monkeypatch.setattr(devices, "_seconds", busy.__getitem__)
    said: list[str] = []
    watch = devices.ThreadWatch(CPU, said.append, every=20.0)
    watch.look()
    assert torch.get_num_threads() == 4
    for threads in list(busy):
        busy[threads] = {4: 10.0, 2: 9.0, 1: 1.0}[threads]
    now[0] = 19.0
    watch.look()
    assert not said, "they are chosen every 20 seconds"
    now[0] = 21.0
    watch.look()
    assert "4 threads are 10.0 times slower than 1, so 1 of 4 are used" in said.pop()
    assert torch.get_num_threads() == 1
    now[0] = 60.0
    watch.look()
    assert not said, "threads that were given up are not taken again"
    assert torch.get_num_threads() == 1
