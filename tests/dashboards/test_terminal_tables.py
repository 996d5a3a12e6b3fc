"""Tables on terminals of 80, 100 and 120 columns: no line is longer, no cell is wrapped, nothing is lost in silence."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pandas as pd
import pytest
from rich.console import Console

from stepfront.dashboards.progress import SearchProgress, TrainingProgress
from stepfront.dashboards.terminal.fitted_table import FittedTable, TextColumn, cut_plan, cut_text
from stepfront.dashboards.terminal.front_table import front_listing
from stepfront.dashboards.terminal.lines import print_event, print_text
from stepfront.dashboards.terminal.live_points import LivePoint, live_table, points_to_show
from stepfront.search.cli.tables.jobs import job_table
from stepfront.search.cli.tables.runs import run_table
from stepfront.search.cli.tables.scores import methods_table
from stepfront.search.records.run_list import RunSummary

LONG_PLAN = " ".join(f"{count}x0.{width}" for count, width in zip(range(1, 13), [25, 50, 75] * 4, strict=True))
WIDTHS = (80, 100, 120)


def made_up_front(count: int = 12) -> pd.DataFrame:
    labels = {0: "cheapest", 4: "knee", count - 1: "best"}
    rows = [
        {
            "label": labels.get(i, ""),
            "trial": 1000 + i,
            "plan": LONG_PLAN,
            "gflops": 12345.678 + i,
            "fid": 321.0 - i,
            "fid_confirmed": 321.5,
            "fid_low": 300.25,
            "fid_high": 342.75,
            "latency_ms": 12345.6,
            "within_noise": 1001 if i == 3 else -1,
            "belongs": i != 2,
            "features": "degradations",
            "brightness": 0.123456,
        }
        for i in range(count)
    ]
    return pd.DataFrame(rows)


def made_up_runs() -> list[RunSummary]:
    name = "a-run-with-a-name-that-is-longer-than-any-column-should-be-" * 2
    made = RunSummary(name, f"runs/{name}", "interrupted", 123_456_789, trials=12_345, points=123, best_fid=1234.5)
    return [made, RunSummary("small", "runs/small", "finished", 1, confirmed=True)]


def made_up_jobs() -> list[dict[str, object]]:
    job = {"job": "digits-0123456789ab", "status": "SUCCEEDED", "minutes": 12345.6, "directory": "/shared/runs" * 12}
    return [job, job | {"minutes": None, "status": "PENDING"}]


def made_up_methods() -> pd.DataFrame:
    return pd.DataFrame({"method": ["fewer_steps", "search"], "evaluations": [12_345, 120], "share": [0.991, 1.0]})


def live_points(count: int = 30) -> list[LivePoint]:
    labels = {0: "cheapest", 12: "knee", count - 1: "best"}
    return [LivePoint(0.001 * i, 40.0 - i, LONG_PLAN, labels.get(i, "")) for i in range(count)]


TABLES: dict[str, tuple[Callable[[], FittedTable], int]] = {
    "front": (lambda: front_listing(made_up_front(), 20_000.0, ["brightness"]), 12),
    "front with a long hint": (
        lambda: front_listing(made_up_front(), 1.0, more="stepfront front " + "a folder/" * 12 + " --wide shows all"),
        12,
    ),
    "live": (lambda: live_table(live_points()), 8),
    "runs": (lambda: run_table(made_up_runs()), 2),
    "jobs": (lambda: job_table(made_up_jobs()), 2),
    "methods": (lambda: methods_table(made_up_methods()), 2),
}


def drawn(table: FittedTable, width: int, colour: bool = False) -> list[str]:
    out = io.StringIO()
    # As the command line does: a console that wraps nothing of its own.
    Console(file=out, width=width, soft_wrap=True, force_terminal=colour, highlight=False).print(table)
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits(name: str, width: int, colour: bool) -> None:
    table, count = TABLES[name][0](), TABLES[name][1]
    header, *lines = drawn(table, width, colour)
    assert max(map(len, [header, *lines])) <= width
    assert table.row_count == count
    rows, notes = lines[:count], lines[count:]
    assert all(row.strip() for row in rows)
    first = [word for column in table.columns[:2] for word in column.cells[count - 1].split()[:1]]
    assert all(word[:4] in rows[-1] for word in first), "the last row is one line, so no cell above it is wrapped"
    shown = header + " ".join(notes)
    assert all(column.name in shown for column in table.columns), "a column that is left out is named"


def test_the_front_shows_more_on_a_wider_terminal_and_all_with_wide() -> None:
    front = made_up_front()
    seen = {width: drawn(front_listing(front, 20_000.0, ["brightness"]), width) for width in (80, 120)}
    assert "confirmed" in seen[80][0]
    assert "latency ms" not in seen[80][0]
    assert "left out: " in seen[80][-1]
    assert "--wide shows all" in seen[80][-1]
    assert len(seen[120][0].split()) > len(seen[80][0].split())
    assert "…" in seen[80][1]
    wide = drawn(front_listing(front, 20_000.0, ["brightness"], wide=True), 80)
    assert all(LONG_PLAN in line for line in wide[1:13])
    assert "within noise of" in wide[0]
    assert not [line for line in wide if "left out" in line]
    assert [line.split()[0] for line in wide[1:13] if not line.startswith(" ")] == [
        "cheapest",
        "(left)",
        "knee",
        "best",
    ]


def test_a_plan_is_cut_after_a_complete_run() -> None:
    assert cut_plan("5x0.50 6x1.00", 13) == "5x0.50 6x1.00"
    assert cut_plan("5x0.50 6x1.00", 12) == "5x0.50 …"
    assert cut_plan("5x0.50 6x1.00", 8) == "5x0.50 …"
    assert cut_plan("5x0.50 6x1.00", 7) == "5x0.50…"
    assert all(len(cut_plan(LONG_PLAN, limit)) <= limit for limit in range(1, len(LONG_PLAN) + 2))
    assert all(len(cut_text(LONG_PLAN, limit)) <= limit for limit in range(1, len(LONG_PLAN) + 2))


def test_the_live_view_holds_the_labelled_points_of_a_long_front() -> None:
    front = live_points(100)
    shown = points_to_show(front)
    assert [point.label for point in shown if point.label] == ["cheapest", "knee", "best"]
    assert len(shown) == 8
    assert shown == sorted(shown)
    assert "92 more of 100 points" in drawn(live_table(front), 80)[-1]
    assert points_to_show(front[:5]) == front[:5]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_view_fits(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=40, soft_wrap=True)  # as the command line's
    with SearchProgress(console) as progress:
        progress.update(100, 2000, 3, live_points(), [float(i) for i in range(100)], 16, 123_456.0)
        progress.update(200, 2000, 3, live_points(), [float(i) for i in range(200)], 16, 223_456.0)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    assert "knee" in out.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_view_of_a_training_shows_every_loss(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=40, soft_wrap=True)
    losses = {share / 8: 0.1 + share / 1000 for share in range(1, 9)}
    with TrainingProgress(console) as progress:
        progress.update(100, 1500, losses)
        print_event(console, "made up: what is done now", style="dim")
        progress.update(200, 1500, losses)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert max(map(len, text.splitlines())) <= width
    assert "1: 0.1080" in " ".join(text.split())
    assert out.getvalue().count("\x1b[2m") == 1, "the style of a line is not that of the view below it"


def test_a_dumb_terminal_and_a_log_get_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = io.StringIO()
    with SearchProgress(Console(file=out, force_terminal=True)) as progress:
        progress.update(1, 10, 0, live_points(), [1.0], 2, 1.0)
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().startswith("1/10 trials, 0 failed")
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_sentences_are_wrapped_at_words_on_a_terminal_alone() -> None:
    text = "FAIL  data       " + "several words and " * 8 + "/a/very/long/path" * 8
    for terminal in (True, False):
        out = io.StringIO()
        print_text(Console(file=out, width=80, force_terminal=terminal, color_system=None), text, indent=17)
        first, *more = out.getvalue().splitlines()
        assert first.startswith("FAIL  data       several")
        if terminal:
            assert len(first) <= 80
            assert more[-1] == " " * 17 + "/a/very/long/path" * 8, "a path stays whole, to be copied"
        else:
            assert (first, more) == (text, [])


def test_lines_of_a_log_have_the_time() -> None:
    out = io.StringIO()
    print_event(Console(file=out), "digits: searching [1]")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d digits: searching \[1\]\n", out.getvalue())


def test_a_table_of_one_column_too_many_drops_the_highest_rank_first() -> None:
    columns = [TextColumn("a", ["x" * 10]), TextColumn("b", ["y" * 10], rank=1), TextColumn("c", ["z" * 10], rank=2)]
    assert drawn(FittedTable(columns), 34)[0].split() == ["a", "b", "c"]
    assert drawn(FittedTable(columns), 33)[0].split() == ["a", "b"]
    assert drawn(FittedTable(columns), 12)[0].split() == ["a"]
