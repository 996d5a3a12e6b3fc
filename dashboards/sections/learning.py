"""Show the learnt samplers of a search: their times, their distances to the teacher, what they gained and took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from stepfront.dashboards.formatting import MISSING, decimal, percent, short_plan, significant
from stepfront.dashboards.html.page import embedded, html_table, paragraph
from stepfront.dashboards.score_figures.times import learnt_records, times_data, times_figure
from stepfront.dashboards.sections.front import PLAN_LENGTH
from stepfront.tables.samplers import sampler_texts
from stepfront.tables.search_tables import SearchTables, number, rows

MOST_FIGURES = 6


def learning_section(tables: SearchTables) -> str:
    """Return figures and tables of learnt samplers; "" where none was learnt."""
    records = [one for one in tables.facts.get("learning") or [] if isinstance(one, dict)]
    if not records:
        return _confirmed(tables)
    if all(one.get("learnt") == "closed_form" for one in records):
        return _measured(records, tables.fid_name) + _confirmed(tables)
    return _times(tables) + _gains(records, tables.fid_name) + _confirmed(tables)


def _measured(records: list[dict[str, Any]], fid_name: str) -> str:
    """Return the solver and grid of each number of steps, where they were measured and nothing was learnt."""
    note = paragraph(
        f"Nothing was learnt: each number of steps runs on the solver and grid of the smallest {fid_name} at full "
        "width, measured before the search on noise that it does not use."
    )
    ordered = sorted(records, key=lambda one: int(one.get("steps", 0)))
    lines = [(one.get("steps"), one.get("start"), decimal(one.get("start_fid"))) for one in ordered]
    return note + html_table([">steps", "solver and grid", f">{fid_name}"], lines)


def _times(tables: SearchTables) -> str:
    """Draw the times of each number of steps; "" where every sampler that was chosen is a closed form."""
    if not learnt_records(tables):
        return paragraph("No learnt sampler was better than the best solver and grid made by hand.")
    drawn = times_data(tables)
    shown = drawn[-MOST_FIGURES:]
    caption = "Times of the steps. Crosses: the time that the network is told, where it was learnt apart."
    figures = [f"<div>{embedded(f'times-{one.steps}', times_figure(one), caption)}</div>" for one in shown]
    left = len(drawn) - len(shown)
    note = f"{left} smaller numbers of steps are left out." if left else ""
    return f'<div class="beside">{"".join(figures)}</div>' + paragraph(note)


def _gains(records: list[dict[str, Any]], fid_name: str) -> str:
    """Return what each learning gained and took."""
    note = paragraph(
        f"Distances are to the images of a many-step teacher at full width. {fid_name} is on noise that neither "
        "learning nor search uses. Over-fitting shows as a held-out distance far above that of the training pairs. A "
        "learnt sampler is chosen only where its held-out distance and its FID are both smaller than those of the best "
        "solver and grid made by hand. Where there is no FID before, all plans of so many steps run on the sampler."
    )
    columns = [
        *("plan", "chosen", "best by hand", "learnt from", ">training distance", ">held out", ">by hand, held out"),
        *(">FID", ">FID by hand", ">FID before", ">calls", ">TFLOPs", ">seconds"),
    ]
    lines = [_gain(one) for one in sorted(records, key=lambda one: (int(one.get("steps", 0)), str(one.get("plan"))))]
    return "<h3>What learning gained and took</h3>" + note + html_table(columns, lines)


def _gain(one: Mapping[str, Any]) -> tuple[Any, ...]:
    before = one.get("own_fid")
    chosen = str(one.get("chosen")) if one.get("improves", True) else f"its own; the best other is {one.get('chosen')}"
    calls = number(one.get("calls"))
    return (
        short_plan(str(one.get("plan")), PLAN_LENGTH),
        chosen,
        one.get("start"),
        one.get("taken") or MISSING,
        *(significant(one.get(name)) for name in ("train", "held_out", "start_held_out")),
        *(decimal(one.get(name)) for name in ("fid", "start_fid")),
        MISSING if before is None else decimal(before),
        MISSING if calls is None else f"{calls:,.0f}",
        significant(one.get("tflops")),
        decimal(one.get("seconds"), 0),
    )


def _confirmed(tables: SearchTables) -> str:
    """Return fitted points beside the plans that they were fitted to, on held-out noise by both judges."""
    gains = confirmed_gains(tables)
    if not len(gains):
        return ""
    columns = [
        *(">trial", ">fitted from trial", ">FID before", ">FID", ">change"),
        *(">second judge before", ">second judge", ">change"),
    ]
    lines = [
        (
            *(g.trial, g.parent, decimal(g.fid_before), decimal(g.fid), percent(g.fid / g.fid_before - 1, 1)),
            *(decimal(g.second_before), decimal(g.second), percent(g.second / g.second_before - 1, 1)),
        )
        for g in rows(gains)
    ]
    title = "<h3>Fitted points and the plans that they were fitted to, on held-out noise seeds</h3>"
    return title + html_table(columns, lines)


def confirmed_gains(tables: SearchTables) -> pd.DataFrame:
    """Return, per fitted front point that was confirmed with its parent, the mean scores of both on both judges."""
    front, confirm = tables.front, tables.confirm
    if not len(confirm) or not len(front):
        return pd.DataFrame()
    samplers = _chosen_samplers(tables)
    scores = confirm.assign(sampler=confirm.get("sampler", ""), second_fid=confirm.get("second_fid", float("nan")))
    means = scores.groupby(["plan", "sampler"])[["fid", "second_fid"]].mean()
    found = []
    for point in rows(front[front["origin"] == "fit"]):
        parent = int(point.parents[0])
        keys = (point.plan, f"fit {point.learnt}"), (point.plan, samplers.get(parent, ""))  # of equal widths
        if all(key in means.index for key in keys):
            now, before = (means.loc[key] for key in keys)
            found.append(
                {"trial": point.trial, "parent": parent, "fid_before": before["fid"], "fid": now["fid"]}
                | {"second_before": before["second_fid"], "second": now["second_fid"]}
            )
    return pd.DataFrame(found)


def _chosen_samplers(tables: SearchTables) -> dict[int, str]:
    """Return, by trial, the sampler of those that do not run on the search's own, as confirm.parquet has it."""
    own = f"{tables.facts.get('solver')}, {tables.facts.get('grid')} grid"
    texts = zip(tables.trials["trial"], sampler_texts(tables.trials), strict=False)  # no texts: plans can't choose
    found = {int(trial): text for trial, text in texts if text != own}
    fits = [trial for trial in rows(tables.trials) if getattr(trial, "origin", "") == "fit"]
    return found | {int(trial.trial): f"fit {trial.learnt}" for trial in fits}  # weights fitted after a sampler
