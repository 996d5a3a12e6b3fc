"""What stands on a terminal, and in a log file."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from stepfront.dashboards.progress import SearchProgress, TrainingProgress, progress_bar, sparkline
from stepfront.dashboards.terminal.front_table import front_listing
from stepfront.dashboards.terminal.live_points import LivePoint
from stepfront.tables.search_tables import read_tables

BEST = [LivePoint(float(cost), 30.0 - cost, f"{cost}x0.50", "best" if cost == 7 else "") for cost in range(1, 8)]
TIME = len("2026-01-31 12:00:00 ")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def plain() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=False, width=100), out


def test_a_log_gets_a_line_each_tenth_or_each_ten_seconds() -> None:
    console, out = plain()
    clock = Clock()
    with SearchProgress(console, clock) as progress:
        for done in range(1, 101):
            progress.update(done, 1000, 0, [], [], 2, float(done))
        assert len(out.getvalue().splitlines()) == 2  # the first, and the first tenth
        clock.now = 10.0
        progress.update(101, 1000, 0, [], [], 2, 101.0)
        progress.update(102, 1000, 0, [], [], 2, 102.0)
    assert len(out.getvalue().splitlines()) == 3


def test_a_line_says_how_far_how_good_and_how_long() -> None:
    console, out = plain()
    with SearchProgress(console, Clock()) as progress:
        progress.update(50, 200, 0, BEST, [1.0, 2.0], 4, 500.0)
        progress.update(100, 200, 3, BEST, [1.0, 2.0], 4, 600.0)
    first, second = (line[TIME:] for line in out.getvalue().splitlines())
    assert "– left" in first  # no pace is known yet
    # 50 trials in 100 s since the first update: what was done before cost this run nothing.
    assert second == (
        "100/200 trials, 3 failed, 4 workers, 10 min so far, 3 min 20 s left, hypervolume 2.000, best FID 23.00"
    )


def test_a_search_without_a_number_of_trials_has_neither_share_nor_remaining_time() -> None:
    console, out = plain()
    clock = Clock()
    with SearchProgress(console, clock) as progress:
        for done in range(1, 7):
            progress.update(done, 0, 0, [], [], 1, 10.0 * done)
        clock.now = 10.0
        progress.update(7, 0, 0, [], [], 1, 70.0)
    lines = [line[TIME:] for line in out.getvalue().splitlines()]
    assert lines == ["1 trial, 0 failed, 1 worker, 10 s so far", "7 trials, 0 failed, 1 worker, 1 min 10 s so far"]
    out = io.StringIO()
    with SearchProgress(Console(file=out, force_terminal=True, width=100), Clock()) as progress:
        progress.update(6, 0, 0, BEST, [1.0, 8.0], 4, 600.0)
    assert "6 trials, 0 failed, 4 workers, 10 min so far" in out.getvalue()
    assert "%" not in out.getvalue()


def test_the_reason_of_the_first_failure_is_printed_once() -> None:
    console, out = plain()
    with SearchProgress(console, Clock()) as progress:
        progress.update(1, 10, 0, [], [], 1, 1.0)
        progress.update(2, 10, 1, [], [], 1, 2.0, "ValueError: [no] such solver")
        progress.update(3, 10, 2, [], [], 1, 3.0, "ValueError: [no] such solver")
    lines = [line[TIME:] for line in out.getvalue().splitlines()]
    assert lines.count("a trial failed: ValueError: [no] such solver") == 1
    assert lines[0].startswith("1/10 trials, 0 failed, 1 worker, ")


def test_a_terminal_shows_a_bar_a_sparkline_and_the_front() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with SearchProgress(console, Clock()) as progress:
        progress.update(100, 200, 3, BEST, [1.0, 8.0], 4, 600.0)
    text = out.getvalue()
    assert "50%" in text
    assert "▁█" in text
    assert all(point.plan in text for point in BEST)
    assert "best" in text


def test_training_shows_the_loss_of_each_width() -> None:
    console, out = plain()
    clock = Clock()
    with TrainingProgress(console, clock) as progress:
        progress.update(0, 100, {})
        clock.now = 5.0
        progress.update(10, 100, {1.0: 0.05, 0.25: 0.0712})
    assert [line[TIME:] for line in out.getvalue().splitlines()] == [
        "step 0/100",
        "step 10/100, 45 s left, loss by width 0.25: 0.0712, 1: 0.0500",
    ]


def test_a_bar_in_a_log_says_the_time_left_of_each_kind_of_work() -> None:
    console, out = plain()
    clock = Clock()
    with progress_bar(console, "confirming", clock) as update:
        for done in range(4, 9):  # four were done before
            update(done, 10, "confirming")
            clock.now += 3.0
        update(1, 2, "drawing")
    assert [line[TIME:] for line in out.getvalue().splitlines()] == [
        "confirming: 4/10",
        "confirming: 5/10, 15 s left",
        "confirming: 6/10, 12 s left",
        "confirming: 7/10, 9 s left",
        "confirming: 8/10, 6 s left",
        "drawing: 1/2",
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], ""), ([3.0], "▁"), ([1.0, 1.0], "▁▁"), ([0.0, 3.5, 7.0], "▁▅█"), (list(range(8)), "▁▂▃▄▅▆▇█")],
)
def test_a_sparkline_runs_from_lowest_to_highest(values: list[float], expected: str) -> None:
    assert sparkline(values) == expected


def test_a_long_sparkline_keeps_its_last_value() -> None:
    assert len(sparkline(range(1000), width=40)) == 40
    assert sparkline([0.0] * 999 + [1.0], width=40).endswith("▁█")


def test_the_front_as_a_table(search: Path, make_search: Callable[..., Path]) -> None:
    out = io.StringIO()
    console = Console(file=out, width=160)
    front = read_tables(search).front
    console.print(front_listing(front, full_gflops=12.0))
    *lines, caption = out.getvalue().splitlines()
    assert caption.strip() == "FID on features: pixels"
    assert " ".join(lines[0].split()) == "point trial plan GFLOPs of full FID confirmed latency ms"
    assert len(lines) == 1 + len(front)
    assert "100%" in lines[-1]
    assert f"{front.fid_confirmed.iloc[-1]:.2f} [" in lines[-1]
    assert [line for line in lines if "(left)" in line] == [lines[3]]
    assert "within noise" not in out.getvalue()
    console.print(front_listing(front.assign(within_noise=[-1] * (len(front) - 1) + [12])))
    assert "within noise of" in out.getvalue()
    assert out.getvalue().splitlines()[-2].endswith(" trial 12")
    console.print(front_listing(read_tables(make_search("u", confirmed=False)).front))
    assert "nan" not in out.getvalue()
