"""Say what a second stage cost and gained, from adaptation.parquet."""

from __future__ import annotations

import pandas as pd

NOTE_HEAD = "| group | times | width | loss before | loss after | change |\n|---|---|---|---|---|---|"


def group_costs(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per group: its times, and what its training cost."""
    columns = ["group", "first_time", "last_time", "factor", "steps", "images", "gflops", "seconds"]
    return table.drop_duplicates("group")[columns].reset_index(drop=True)


def change_by_width(table: pd.DataFrame) -> dict[float, float]:
    """Return the relative change of the held-out loss per width, averaged over the groups; negative is a gain."""
    change = table["loss_after"] / table["loss_before"] - 1
    return {float(str(width)): float(mean) for width, mean in change.groupby(table["width"]).mean().items()}


def adaptation_sentence(table: pd.DataFrame) -> str:
    """Return what a second stage changed and cost, in two sentences; "" for a table without rows."""
    if table.empty:
        return ""
    costs = group_costs(table)
    changes = ", ".join(f"{100 * change:+.1f}% at width {width:g}" for width, change in change_by_width(table).items())
    seconds = costs["seconds"].sum(min_count=len(costs))
    took = "" if pd.isna(seconds) else f", and {seconds:,.0f} seconds of training steps"
    merged = " and merged them" if costs["factor"].notna().any() else ""
    return (
        f"A second stage trained {len(costs)} groups of times{merged}: held-out loss {changes}, mean over the groups. "
        f"It took {costs['gflops'].sum() / 1000:,.3g} TFLOPs, {costs['images'].sum():,} images{took}."
    )


def adaptation_note(table: pd.DataFrame) -> str:
    """Return the sentences and a Markdown table of the losses before and after."""
    lines = [adaptation_sentence(table), "", NOTE_HEAD]
    for row in table.to_dict("records"):
        change = 100 * (row["loss_after"] / row["loss_before"] - 1)
        losses = f"{row['loss_before']:.4f} | {row['loss_after']:.4f}"
        times = f"{row['first_time']}-{row['last_time']}"
        lines.append(f"| {row['group']} | {times} | {row['width']:g} | {losses} | {change:+.1f}% |")
    return "\n".join(lines)
