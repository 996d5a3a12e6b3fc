"""Make the report's sections as HTML; "" where there is nothing to show."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

from stepfront.dashboards.claim import claim_tile, has_claim
from stepfront.dashboards.figures import (
    front_data,
    front_figure,
    hypervolume_data,
    hypervolume_figure,
    latency_data,
    latency_figure,
    origins_data,
    origins_figure,
    plans_data,
    plans_figure,
    proxies_data,
    proxies_figure,
)
from stepfront.dashboards.formatting import (
    MISSING,
    decimal,
    duration,
    equal_point,
    flops,
    interval,
    method_name,
    percent,
    ratio,
    short_plan,
    significant,
)
from stepfront.dashboards.own_scores import own_score_columns, own_scores_of
from stepfront.dashboards.page import embedded, html_table, paragraph
from stepfront.dashboards.summary import summary_sentences
from stepfront.tables.search_tables import SearchTables, number, rows

PLAN_LENGTH = 400


def head(tables: SearchTables) -> str:
    """Return the title, what was searched, and the summary."""
    facts = tables.facts
    steps = "up to {} steps" if facts.get("skip") else "{} steps"
    asked = {"dataset": "on {}", "steps": steps, "solver": "{}", "guidance": "guidance {}"}
    asked |= {"encoding": "encoding {}", "device": "{}"}
    about = ", ".join(text.format(facts[key]) for key, text in asked.items() if facts.get(key) not in (None, ""))
    points = "".join(f"<li>{escape(sentence)}</li>" for sentence in summary_sentences(tables))
    return f'<h1>{escape(tables.name)}</h1><p class="quiet">{escape(about)}</p><ul class="summary">{points}</ul>'


def key_figures(tables: SearchTables) -> str:
    """Return a few key numbers in large type."""
    front, full, facts = tables.front, tables.full, tables.facts
    tiles = []
    if has_claim(tables.savings):
        tiles.append(claim_tile(tables.savings))
    if len(front):
        tiles.append((str(len(front)), "points on the front"))
        tiles.append((decimal(front.fid.min()), "best FID of the search"))
    if full.fid is not None:
        tiles.append((decimal(full.fid), "FID of full width"))
    if full.gflops is not None:
        tiles.append((significant(full.gflops), "GFLOPs of full width"))
    tiles.append((f"{len(tables.trials):,}", "trials"))
    if (spent := number(facts.get("network_gflops"))) is not None:
        tiles.append((flops(spent), "network FLOPs"))
    if (seconds := number(facts.get("seconds"))) is not None:
        tiles.append((duration(seconds), "wall clock"))
    shown = "".join(f'<div class="tile"><b>{value}</b><span>{what}</span></div>' for value, what in tiles)
    return f'<div class="tiles">{shown}</div>'


def front_section(tables: SearchTables) -> str:
    """Return the main figure, FID against GFLOPs."""
    if tables.front.empty:
        return ""
    data = front_data(tables)
    thinned = f" {data.drawn:,} of {data.dominated:,} other trials are drawn." if data.drawn < data.dominated else ""
    caption = (
        "Lower left is better. The line shows the best FID that the search found at or below each cost; points above "
        f"and to the right of it are dominated. Move the slider to see the search progress.{thinned}"
    )
    return embedded("front", front_figure(data), caption)


def points_section(tables: SearchTables) -> str:
    """Return the front as a table."""
    columns = ["label", ">trial", "plan", ">GFLOPs", ">of full", ">FID", ">confirmed", "interval", "on the front"]
    beside = bool(tables.front.kid.notna().any())
    columns += [">KID", "interval", ">precision", ">recall"] if beside else []
    second = bool(tables.front.second_confirmed.notna().any())
    columns += [">second judge", "interval"] if second else []
    extrapolated = bool(tables.front.fid_infinity.notna().any())
    columns += [">FID-infinity"] if extrapolated else []
    noisy = bool((tables.front.within_noise >= 0).any())
    columns += [">within noise of"] if noisy else []
    columns += own_score_columns(tables)
    points = [
        [
            row.label.replace(",", ", "),
            row.trial,
            short_plan(row.plan, PLAN_LENGTH),
            significant(row.gflops),
            percent(ratio(row.gflops, tables.full.gflops)),
            decimal(row.fid),
            decimal(row.fid_confirmed),
            interval(row.fid_low, row.fid_high),
            _belongs(row.fid_confirmed, row.belongs),
            *(_beside_fid(row) if beside else []),
            *([decimal(row.second_confirmed), interval(row.second_low, row.second_high)] if second else []),
            *([decimal(row.fid_infinity)] if extrapolated else []),
            *([equal_point(row.within_noise)] if noisy else []),
            *own_scores_of(row, tables),
            significant(row.latency_ms),
            row.origin,
        ]
        for row in rows(tables.front)
    ]
    return _of_features(tables) + html_table((*columns, ">ms", "origin"), points) if points else ""


def _beside_fid(row: Any) -> list[str]:
    ends = "" if pd.isna(row.kid_low) else f"[{significant(row.kid_low)}, {significant(row.kid_high)}]"
    return [significant(row.kid), ends, decimal(row.precision), decimal(row.recall)]


def _of_features(tables: SearchTables) -> str:
    """Return a line with the features that a table's scores are computed on."""
    features = tables.facts.get("features")
    second = next((str(name) for name in tables.front.get("second_features", ()) if name), "")
    text = f"All scores are computed on the features {features}" if features else ""
    text += f", those of the second judge on {second}" if features and second else ""
    return paragraph(f"{text}." if text else "")


def _belongs(confirmed: float, belongs: bool) -> str:
    if pd.isna(confirmed):
        return "not confirmed"
    return "yes" if belongs else "no longer"


def plans_section(tables: SearchTables) -> str:
    """Return the heat map of widths."""
    data = plans_data(tables)
    if not data.widths.size:
        return ""
    drawn, points = len(data.labels), len(tables.front)
    thinned = f" {drawn} of {points} points are drawn." if drawn < points else ""
    caption = f"Each row is a plan of the front, with the cheapest at the bottom. Darker is wider.{thinned}"
    return embedded("plans", plans_figure(data), caption)


def baselines_section(tables: SearchTables) -> str:
    """Compare the search with its baselines."""
    return _methods_table(tables) + _versus_table(tables) + _confirmed_versus_table(tables)


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
    return _of_features(tables) + share + html_table(columns, lines)


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
    return title + _of_features(tables) + html_table(columns, compared)


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
    title = "<h3>The same on held-out noise seeds</h3>"
    means = paragraph("Means over held-out noise seeds. Where the difference is negative, the front is better.")
    return title + _of_features(tables) + means + html_table(columns, compared)


def confirmed_versus(confirm: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """Return for each front point the best baseline of equal or lower cost, by means over held-out noise seeds.

    A front point whose plan is among the `baselines` counts as one, too.  Points without such a baseline are left out.
    """
    if confirm.empty:
        return confirm
    kinds = confirm.assign(sampler=confirm.get("sampler", "")).groupby(["kind", "plan", "sampler"], sort=False)
    means = pd.DataFrame(
        [
            {"kind": kind, "plan": plan, "trial": part["trial"].iloc[0], "label": part["label"].iloc[0]}
            | {"gflops": float(part["gflops"].iloc[0]), "fid": float(part["fid"].mean())}
            for (kind, plan, _), part in kinds
        ],
        columns=["kind", "plan", "trial", "label", "gflops", "fid"],
    )
    baselines = baselines[baselines["method"] != "samplers"]  # plans of other samplers have runs like the front's own
    methods = dict(zip(baselines["plan"], baselines["method"], strict=True))
    means["method"] = means["plan"].map(methods).astype(object)
    is_baseline = means["kind"].isin(["baseline", "sampler"])
    means.loc[is_baseline, "method"] = means.loc[is_baseline, "label"]
    scored = means[means["method"].notna()]
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


def _spent(method: Any) -> str:
    spent = number(method.network_gflops)
    return MISSING if spent is None else flops(spent)


def hypervolume_section(tables: SearchTables) -> str:
    """Return the growth of the front's hypervolume."""
    if tables.progress.empty:
        return ""
    caption = "Hypervolume: the area between front and reference point. Higher is better."
    caption += " Horizontal lines are the final hypervolumes of the baselines." if len(tables.methods) else ""
    return embedded("hypervolume", hypervolume_figure(hypervolume_data(tables)), caption)


def origins_section(tables: SearchTables) -> str:
    """Return how often each origin was tried, and how often it reached the front."""
    if tables.trials.empty:
        return ""
    caption = "How often each way of proposing a plan was tried, and how many of its plans are on the front."
    return embedded("origins", origins_figure(origins_data(tables)), caption)


def proxies_section(tables: SearchTables) -> str:
    """Compare the proxies with FID."""
    pairs = proxies_data(tables)
    if not pairs:
        return ""
    caption = "Each trial on a cheap and on an expensive score. Kendall's τ is 1 for equal rankings, 0 for unrelated."
    return embedded("proxies", proxies_figure(pairs), caption)


def latency_section(tables: SearchTables) -> str:
    """Compare latency with FLOPs."""
    data = latency_data(tables)
    if data.empty:
        return ""
    caption = "On the dashed line, latency falls with FLOPs. Above it, latency falls less than FLOPs do."
    return embedded("latency", latency_figure(data), caption)
