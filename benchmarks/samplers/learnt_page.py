"""Write docs/bench-sampler.md: learnt samplers against hand samplers, by number of steps."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.markdown import markdown
from benchmarks.samplers.gaussians import gaussians
from benchmarks.samplers.rows import LEARNT
from benchmarks.samplers.tables import HAND, facts, hand_samplers, is_full_width, is_learnt, judges_of

FEW_STEPS = (4, 5, 6)
GOAL = 0.8
"""The goal for the best learnt distance at few steps, as a share of the best hand sampler's, by the second judge."""


def learnt_page(
    tables: dict[str, pd.DataFrame], made: str, notes: str, others: str = "", only: str | None = None
) -> str:
    """Return the text of the page, of `only` one supernet or of all; `others` is a line that links other pages.

    The page of all ends with two Gaussians, which have no supernet.
    """
    without = [name for name, table in tables.items() if not is_learnt(table).any()]
    only_hand = f"Nothing has been learnt on {' and '.join(without)}: hand samplers alone are drawn." if without else ""
    tables = {name: hand_and_learnt(table) for name, table in tables.items() if is_learnt(table).any()}
    title = "# Learnt samplers against solvers on hand grids" + (f": {only}" if only else "")
    figure = f"![Frechet distance against steps](bench-sampler{f'-{only}' if only else ''}.svg)"
    parts = [title, made, introduction(tables, only), notes, others, figure, only_hand]
    if tables:
        parts += [summary(tables), outcome(tables) if only else REASON]
    for name, table in tables.items():
        parts += [f"## {name}", facts(table)]
        for judge in judges_of(table):
            parts += [f"### {judge.removeprefix('FD ')}", markdown(by_steps(table, judge))]
        mixed = table[~is_full_width(table)]
        if len(mixed):
            parts += ["### Mixed plans", FITTED, markdown(by_plan(mixed))]
        parts += ["### What learning took", markdown(learning(table))]
    if not only:
        parts += ["## Two Gaussians", gaussians()]
    return "\n\n".join(part for part in parts if part) + "\n"


def introduction(tables: dict[str, pd.DataFrame], only: str | None) -> str:
    """Return how the page's figures were made, and how to read them."""
    command = "`python -m benchmarks.samplers --train --processes 12` trains the supernets and measures"
    if only:
        command = f"`python -m benchmarks.samplers --supernet {only} --train` trains the supernet and measures"
    kept = {str(name) for table in tables.values() for name in table.loc[is_learnt(table), "device"].unique()}
    cpu = {name for name in kept if name.startswith("cpu")}
    seconds = [
        "Seconds on a GPU are\nthose of one of some 14 processes that shared it, so they are an upper bound."
        if kept - cpu
        else "",
        "Seconds on a CPU are\nof one thread beside other work." if cpu else "",
    ]
    return "\n\n".join([f"{command}; another call\n{CONTINUES}", DISTANCES, " ".join([TOOK, *filter(None, seconds)])])


CONTINUES = """\
continues what was interrupted, and `not run` is what no call has reached. Nothing is learnt for 50 steps, which is
the teacher's number."""

DISTANCES = """\
Frechet distances: means over noise seeds that neither learning nor a search uses; lower is better. Hand samplers are
those of the baseline `samplers`. Samplers are learnt with the default settings (`learning`) at full width, and for
three mixed plans, as a search and `stepfront fit` do. The last line of a table is the best learnt score as a share of
the best hand sampler's."""

TOOK = """\
The distances in the tables of learning are to the images of a teacher of 50 steps (`learning.distance: root`), on
held-out pairs, beside those of the closed form that learning started from. A search uses a learnt sampler whose
held-out distance, and whose score by the first judge on noise of its own, are smaller than those of the best hand
sampler: column `used`. Calls are network calls, one per image; a backward pass counts as one."""

FITTED = "Each sampler was learnt for, or runs on, the plan's own widths. Rows are judge by judge."


def hand_and_learnt(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of hand samplers and learnt ones."""
    return pd.concat([hand_samplers(table), table[is_learnt(table)]], ignore_index=True)


def by_steps(table: pd.DataFrame, judge: str) -> pd.DataFrame:
    """Return one row per sampler and one column per number of steps at full width, and the shares in the last row."""
    return _with_share(table[is_full_width(table)], judge, "steps")


def by_plan(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per judge and sampler, and one column per mixed plan."""
    each = {judge.removeprefix("FD "): _with_share(table, judge, "plan") for judge in judges_of(table)}
    return pd.concat(each, names=["judge"])


def _with_share(table: pd.DataFrame, judge: str, columns: str) -> pd.DataFrame:
    scored = table.pivot_table(index="sampler", columns=columns, values=judge, sort=False)
    scored = scored[sorted(scored.columns)].reindex([name for name in (*HAND, *LEARNT) if name in scored.index])
    shown = scored.map(lambda score: "not run" if np.isnan(score) else f"{score:.3g}")
    shown.loc["share"] = [f"{value:.2f}" if value == value else "" for value in shares(scored)]
    return shown


def shares(scored: pd.DataFrame) -> pd.Series:
    """Return the best learnt distance as a share of the best hand sampler's, by column; rows are samplers."""
    learnt = scored.index.isin(LEARNT)
    return scored[learnt].min() / scored[~learnt].min()


def summary(tables: dict[str, pd.DataFrame]) -> str:
    """Return the shares of all supernets and judges at full width, and in how many the goal is met."""
    rows = {}
    for name, table in tables.items():
        full = table[is_full_width(table)]
        for judge in judges_of(table):
            scored = full.pivot_table(index="sampler", columns="steps", values=judge)
            rows[name, judge.removeprefix("FD ")] = shares(scored)
    wide = pd.DataFrame(rows).T.rename_axis(["supernet", "judge"])
    wide = wide[[steps for steps in sorted(wide.columns) if wide[steps].notna().any()]]
    second = wide[wide.index.get_level_values("judge") == "classifier"]
    few = [steps for steps in FEW_STEPS if steps in wide]
    met, goal = int((second[few] <= GOAL).sum().sum()), ""
    if few and len(second):
        goal = (
            f" At {few[0]} to {few[-1]} steps a share of at most\n{GOAL} by the second judge, classifier, is "
            f"reached in {met} of {int(second[few].notna().sum().sum())} cells."
        )
    shown = wide.map(lambda value: "not run" if np.isnan(value) else f"{value:.2f}")
    return "\n\n".join(
        [
            "## Share of the best hand sampler's distance",
            "The best learnt sampler against the best hand sampler. Hand samplers are chosen after the fact, judge by\n"
            "judge, while a user has to take one.",
            markdown(shown),
            f"The learnt sampler is no worse in {int((wide <= 1).sum().sum())} of {int(wide.notna().sum().sum())} "
            f"cells.{goal}",
        ]
    )


REASON = """\
Learning brings images nearer to the teacher's: the held-out distance falls everywhere. It pays most by pixels, and
where hand samplers are far from the teacher, which is at 3 and 4 steps. By the first judge, `degradations`, it mostly
loses. A likely reason is that the mean of several images that a few steps can't tell apart is smooth, and that
network is trained to see blur. A search asks that judge too, and keeps the hand sampler there (column `used`)."""


def outcome(tables: dict[str, pd.DataFrame]) -> str:
    """Return in how many learnings the held-out distance fell, and in how many a search would use the result."""
    learnt = pd.concat([learnt_once(table) for table in tables.values()])
    fell, used = int((learnt["held_out"] < learnt["start_held_out"]).sum()), int(learnt["used"].sum())
    return (
        f"Of {len(learnt)} learnings, the distance to the teacher's images falls in {fell} on held-out pairs. A search "
        f"would use {used}\n(column `used`): the others are no better on held-out pairs, or by the first judge."
    )


def learnt_once(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per learning; the table has one per noise seed."""
    return table[is_learnt(table)].drop_duplicates(["plan", "sampler"])


def learning(table: pd.DataFrame) -> pd.DataFrame:
    """Return what each learning took and found."""
    learnt = learnt_once(table)
    learnt = learnt.assign(kind=pd.Categorical(learnt["sampler"], list(LEARNT))).sort_values(["steps", "plan", "kind"])
    columns = {"start": "starts against", "held_out": "held-out", "start_held_out": "closed form", "train": "training"}
    shown = learnt[["plan", "sampler", *columns, "used", "calls", "seconds", "device"]].rename(columns=columns)
    digits = {"held-out": 4, "closed form": 4, "training": 4, "seconds": 0}
    return shown.round(digits).astype({"calls": int, "seconds": int}).set_index("plan")
