"""Define the verbs that meet a fault, call them, and say by what their results are compared."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock


@dataclass
class Verb:
    """A verb as it is called on RUN, and what is compared of its result."""

    name: str
    words: Sequence[str]


VERBS = (
    Verb("front", ("front", "RUN", "--json")),
    Verb("claim", ("claim", "RUN", "--json")),
    Verb("compare", ("compare", "RUN", "RUN-2", "--json")),
    Verb("report", ("report", "RUN")),
    Verb("ui", ("ui", "RUN")),
    Verb("sync", ("sync", "RUN")),
    Verb("export", ("export", "RUN", "--out", "RUN/../out")),
    Verb("confirm", ("confirm", "RUN", "--json")),
    Verb("baselines", ("baselines", "RUN", "--evaluations", "2", "--json")),
    Verb("register", ("register", "RUN")),
    Verb("doctor", ("doctor", "RUN")),
)


@dataclass
class Outcome:
    """What a verb did: its exit code, what it printed, and the traceback where it had one."""

    code: int
    out: str
    error: str
    trace: str = ""
    result: str = ""


def call(words: Sequence[str], run: Path) -> Outcome:
    """Run a verb in this process; a server is not started."""
    from stepfront.search.cli.main import main

    given = ["stepfront", *(word.replace("RUN", str(run)) for word in words)]
    out, error = io.StringIO(), io.StringIO()
    trace, code = "", 0
    served = "stepfront.search.tracking.server._serve"
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
        mock.patch.object(sys, "argv", given),
        mock.patch(served, return_value=None),
        mock.patch("stepfront.search.cli.main.handle_sigterm", return_value=None),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            trace, code = traceback.format_exc(), 1
    return Outcome(code, out.getvalue(), error.getvalue(), trace)


def result_of(verb: str, outcome: Outcome, run: Path) -> str:
    """Return what a verb's result is compared by: its numbers, without places and times."""
    if outcome.code != 0:
        return ""
    if verb == "export":
        return (run.parent / "out" / "plan.json").read_text()
    if verb == "report":
        return (run / "search" / "front.csv").read_text()
    if verb in ("front", "claim", "compare", "confirm", "baselines"):
        return outcome.out.replace(str(run), "RUN")
    return ""
