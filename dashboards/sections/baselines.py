"""Compare the search with its baselines: per method, per front point, and on held-out noise seeds."""

from __future__ import annotations

from typing import Any

import pandas as pd

from stepfront.dashboards.formatting import MISSING, decimal, flops, method_name, percent, short_plan, significant
from stepfront.dashboards.html.page import html_table, paragraph
from stepfront.dashboards.sections.front import PLAN_LENGTH, of_features
from stepfront.dashboards.summary import not_scored
from stepfront.tables.schema import METHOD_SCORES
from stepfront.tables.search_tables import SearchTables, number, rows

OF_EVERY_SEARCH = {"search", "samplers", "uniform"}
"""Methods that a search scores by itself; they do not have as many evaluations as it has."""


def baselines_section(tables: SearchTables) -> str:
    """Compare the search with its baselines, or say which command scores them."""
    compared = _samplers_table(tables)
    compared += _methods_table(tables) + _versus_table(tables) + _confirmed_versus_table(tables)
    methods = set(tables.methods["method"]) if len(tables.methods) else set()
    known = methods - OF_EVERY_SEARCH or METHOD_SCORES in tables.missing
    return compared if known or tables.front.empty else compared + paragraph(not_scored(tables))


def _samplers_table(tables: SearchTables) -> str:
    """Return the best full-width sampler per number of steps beside the front; "" where none was scored."""
    best = best_samplers(tables.baselines, tables.front)
    if not len(best):
        return ""
    columns = (">steps", "sampler", ">GFLOPs", ">FID", ">FID of the front at equal or lower cost")
    lines = [
        (s.steps, s.sampler or "the search's own", significant(s.gflops), decimal(s.fid), decimal(s.front_fid))
        for s in rows(best)
    ]
    title = "<h3>Full width with the best solver and grid</h3>"
    return title + of_features(tables) + html_table(columns, lines)


def best_samplers(baselines: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """Return the full-width sampler of least FID per number of steps, and the front's best FID within its cost."""
    samplers = baselines[baselines["method"] == "samplers"] if len(baselines) else baselines
    if not len(samplers):
        return pd.DataFrame()
    samplers = samplers.assign(steps=samplers["widths"].map(len))
    best = samplers.loc[samplers.groupby("steps")["fid"].idxmin(), ["steps", "sampler", "gflops", "fid"]]
    within = [front.loc[front["gflops"] <= cost * (1 + 1e-9), "fid"].min() for cost in best["gflops"]]
    return best.assign(front_fid=within)


def _methods_table(tables: SearchTables) -> str:
    """Return what each method reached; "" where none was scored."""
    if not len(tables.methods):
        return ""
    methods = tables.methods.sort_values("hypervolume", ascending=False)
    lines = [
        (method_name(m.method), f"{m.evaluations:,}", significant(m.hypervolume, 4), percent(m.share, 1), _spent(m))
        for m in rows(methods)
    ]
    share = paragraph("Share: of the hypervolume of the front that all methods make together.")
    columns = ("method", ">evaluations", ">hypervolume", ">share", ">network FLOPs")
    return of_features(tables) + share + html_table(columns, lines)


def _versus_table(tables: SearchTables) -> str:
    """Return each front point beside its best baseline; "" where none was scored."""
    if not len(tables.versus):
        return ""
    columns = (">trial", ">GFLOPs", ">FID", ">baseline's FID", ">baseline's GFLOPs", "baseline", "plan")
    compared = [
        (
            v.trial,
            significant(v.gflops),
            decimal(v.fid),
            decimal(v.baseline_fid),
            significant(v.baseline_gflops),
            method_name(v.baseline_method or MISSING),
            short_plan(v.baseline_plan or MISSING, PLAN_LENGTH),
        )
        for v in rows(tables.versus.sort_values("gflops"))
    ]
    title = "<h3>Each front point and the best baseline of equal or lower cost</h3>"
    return title + of_features(tables) + html_table(columns, compared)


def _confirmed_versus_table(tables: SearchTables) -> str:
    """Return the same comparison on held-out noise seeds; "" where there is none."""
    confirmed = confirmed_versus(tables.confirm, tables.baselines)
    if not len(confirmed):
        return ""
    columns = (">trial", ">GFLOPs", ">FID", ">best baseline's FID", ">baseline's GFLOPs", "baseline", ">difference")
    compared = [
        (
            int(v.trial),
            significant(v.gflops),
            decimal(v.fid),
            decimal(v.baseline_fid),
            significant(v.baseline_gflops),
            method_name(v.baseline),
            decimal(v.fid - v.baseline_fid),
        )
        for v in rows(confirmed)
    ]
    title = "<h3>Each front point and the best baseline of equal or lower cost, on held-out noise seeds</h3>"
    means = paragraph("Means over held-out noise seeds. Where the difference is negative, the front is better.")
    return title + of_features(tables) + means + html_table(columns, compared)


def confirmed_versus(confirm: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """Return for each front point the best baseline of equal or lower cost, by means over held-out noise seeds.

    A front point whose plan is among the `baselines` counts as one, too.  Points without such a baseline are left out.
    """
    if confirm.empty:
        return confirm
    kinds = confirm.assign(sampler=confirm.get("sampler", "")).groupby(["kind", "plan", "sampler"], sort=False)
    means = pd.DataFrame(
        [
            {"kind": kind, "plan": plan, "sampler": sampler, "trial": part["trial"].iloc[0]}
            | {"label": part["label"].iloc[0]}
            | {"gflops": float(part["gflops"].iloc[0]), "fid": float(part["fid"].mean())}
            for (kind, plan, sampler), part in kinds
        ],
        columns=["kind", "plan", "sampler", "trial", "label", "gflops", "fid"],
    )
    # Plans of other samplers have runs like the search's own.
    all_baselines, baselines = baselines, baselines[baselines["method"] != "samplers"]
    methods = dict(zip(baselines["plan"], baselines["method"], strict=True))
    means["method"] = means["plan"].where(means["sampler"] == "").map(methods).astype(object)
    is_baseline = means["kind"].isin(["baseline", "sampler"])
    means.loc[is_baseline, "method"] = means.loc[is_baseline, "label"]
    scored = means[means["method"].notna() & ~_breaks_constraint(means, all_baselines)]
    found = []
    for point in rows(means[means["kind"] == "front"].sort_values("gflops")):
        affordable = scored[scored["gflops"] <= point.gflops * (1 + 1e-9)]
        if len(affordable):
            best = affordable.loc[affordable["fid"].idxmin()]
            found.append(
                {"trial": point.trial, "gflops": point.gflops, "fid": point.fid}
                | {"baseline": best["method"], "baseline_gflops": best["gflops"], "baseline_fid": best["fid"]}
            )
    return pd.DataFrame(found)


def _breaks_constraint(plans: pd.DataFrame, baselines: pd.DataFrame) -> pd.Series:
    """Return which plans are baselines that break a constraint of the search, which it could not have proposed."""
    if "violation" not in baselines:
        return pd.Series(False, index=plans.index)
    broken = baselines[baselines["violation"] > 0]
    keys = set(zip(broken["plan"], broken["sampler"], strict=True))
    named = zip(plans["plan"], plans["sampler"], strict=True)
    return pd.Series([key in keys for key in named], plans.index, dtype=bool)


def _spent(method: Any) -> str:
    spent = number(method.network_gflops)
    return MISSING if spent is None else flops(spent)
