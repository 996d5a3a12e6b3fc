"""Summarise what a search found in plain sentences with numbers."""

from __future__ import annotations

import pandas as pd

from stepfront.dashboards.claim import claim_sentences
from stepfront.dashboards.earlier import earlier_sentences
from stepfront.dashboards.formatting import (
    decimal,
    duration,
    flops,
    method_name,
    percent,
    plural,
    short_plan,
    significant,
)
from stepfront.tables.search_tables import SearchTables, number

PLAN_LENGTH = 120


def summary_sentences(tables: SearchTables) -> list[str]:
    """Return sentences: the saving at equal quality, the closest baseline, luck, earlier searches, and the effort."""
    sentences = [
        *_saved(tables),
        *_closest_baseline(tables),
        *_versus_baselines(tables),
        *_luck(tables),
        *_noise(tables),
        *_latents(tables),
        *earlier_sentences(tables.facts),
        *_effort(tables),
    ]
    return sentences or ["No trial has completed yet."]


def _saved(tables: SearchTables) -> list[str]:
    if tables.savings:
        return claim_sentences(tables.savings, tables.front, str(tables.directory))
    return _saved_unconfirmed(tables)


def _saved_unconfirmed(tables: SearchTables) -> list[str]:
    full, front = tables.full, tables.front
    if not full.gflops or full.fid is None or front.empty:
        return []
    if len(tables.confirmed):
        return ["Full width was not confirmed, so nothing is claimed on what is saved at equal quality."]
    equal = front[(front.fid <= full.fid) & (front.gflops < full.gflops)]
    if equal.empty:
        return [f"No cheaper plan of the front reaches the FID of full width at every step, {decimal(full.fid)}."]
    cheapest = equal.iloc[0]
    share = percent(1 - float(cheapest.gflops) / full.gflops)
    plan = short_plan(str(cheapest.plan), PLAN_LENGTH)
    return [
        f"By the search's own scores, the plan {plan} needs {share} fewer FLOPs than full width at every step, at an "
        f"equal or better FID ({decimal(cheapest.fid)} against {decimal(full.fid)})."
    ]


def not_scored(tables: SearchTables) -> str:
    """Return that no baseline was scored, and the command that does it."""
    return (
        "What the search had to beat was not scored: it is compared with no baseline of equal evaluations. "
        f"`stepfront baselines {tables.directory}` scores them."
    )


def _closest_baseline(tables: SearchTables) -> list[str]:
    methods = tables.methods.set_index("method").share.astype(float)
    baselines = methods.drop("search", errors="ignore").dropna()
    if baselines.empty or "search" not in methods.index:
        return []
    closest, ours = str(baselines.idxmax()), float(methods["search"])
    shares = (
        f"{percent(float(baselines.max()), 1)} of the best known front's hypervolume, the search {percent(ours, 1)}"
    )
    if baselines.max() >= ours:
        return [f"The search does not beat its baselines: {method_name(closest)} covers {shares}."]
    return [f"The closest baseline, {method_name(closest)}, covers {shares}."]


def _versus_baselines(tables: SearchTables) -> list[str]:
    # A front point cheaper than every baseline has nothing to be compared with.
    versus = tables.versus.dropna(subset=["fid", "baseline_fid"])
    if versus.empty:
        return []
    gain = versus.baseline_fid.astype(float) - versus.fid.astype(float)
    better = gain[gain > 0]
    points = f"{len(better)} of {plural(len(versus), 'front point')}"
    count = f"{points} {'scores' if len(better) == 1 else 'score'} better than every baseline of equal or lower cost"
    return [f"{count}, by {decimal(better.median())} FID in the median." if len(better) else f"{count}."]


def _luck(tables: SearchTables) -> list[str]:
    if tables.front.empty:
        return []
    if tables.confirmed.empty:
        return [
            "The front is not confirmed on held-out noise seeds. Each of its scores is the best of many, so part of "
            "its gain is luck."
        ]
    stated = tables.savings.get("luck")
    if isinstance(stated, str):
        return [stated]
    luck = number(stated)
    luck = luck_of_the_front(tables.confirm) if luck is None else luck
    count = int(tables.confirmed.belongs.astype(bool).sum())
    stayed = f"{count} of {plural(len(tables.confirmed), 'confirmed point')} stayed on the front"
    if luck is None:
        return [f"On held-out noise seeds, {stayed}."]
    if luck <= 0:
        return [f"On held-out noise seeds the front's mean FID rose no more than full width's; {stayed}."]
    return [
        f"On held-out noise seeds the front's mean FID rose by {decimal(luck)} more than full width's, an estimate of "
        f"the luck in its scores; {stayed}."
    ]


def luck_of_the_front(confirm: pd.DataFrame) -> float | None:
    """Return how much more the front's FID rose on held-out noise seeds than full width's, which was not selected.

    None when either was not confirmed.  Subtracting full width removes what changes for every plan, such as the number
    of images.
    """
    rise = confirm.fid.astype(float) - confirm.fid_search.astype(float)
    rises = rise.groupby(confirm.kind).mean()
    return number(float(rises["front"] - rises["full"])) if {"front", "full"} <= set(rises.index) else None


def _noise(tables: SearchTables) -> list[str]:
    """Return how far scores move with the noise seed, and how many front points a cheaper one equals within that."""
    noise = tables.facts.get("noise")
    spread = number(noise.get("spread")) if isinstance(noise, dict) else None
    sentences = [] if spread is None else [f"The FID of one plan moves by {percent(spread, 1)} between noise seeds."]
    if equal := int((tables.front.within_noise >= 0).sum()):
        points = f"{equal} of {plural(len(tables.front), 'front point')} {'is' if equal == 1 else 'are'}"
        sentences.append(f"{points} better than a cheaper one by no more than noise.")
    return sentences


def _latents(tables: SearchTables) -> list[str]:
    """Return what decoding costs, and the FID of the autoencoder alone; nothing for a search on pixels."""
    work, latency = number(tables.facts.get("gflops_decode")), number(tables.facts.get("latency_ms_decode"))
    if work is None:
        return []
    spent = f"{significant(work)} GFLOPs" + (f" and {significant(latency)} ms" if latency is not None else "")
    sentences = [f"Plans make latents. Decoding takes another {spent} per image, which no cost of a plan includes."]
    floor = tables.facts.get("reconstruction")
    if isinstance(floor, dict) and (fid := number(floor.get("fid"))) is not None:
        sentences.append(
            f"The autoencoder alone scores FID {decimal(fid)} on {floor.get('images', 0):,} held-out images, which is "
            "the floor."
        )
    return sentences


def _effort(tables: SearchTables) -> list[str]:
    trials, front = tables.trials, tables.front
    if trials.empty:
        return []
    failed = int((trials.state != "complete").sum())
    spent = [_network_work(gflops, tables)] if (gflops := number(tables.facts.get("network_gflops"))) else []
    spent += [duration(seconds)] if (seconds := number(tables.facts.get("seconds"))) else []
    effort = f"It took {plural(len(trials), 'trial')}"
    effort += f", of which {failed:,} failed" if failed else ""
    effort += f" ({', '.join(spent)})" if spent else ""
    if front.empty:
        return [f"{effort}; none is on a front."]
    ends = [significant(front.gflops.min()), significant(front.gflops.max())]
    reach = f"from {ends[0]} to {ends[1]} GFLOPs per image" if len(front) > 1 else f"at {ends[0]} GFLOPs per image"
    return [f"{effort}; the front has {plural(len(front), 'point')}, {reach}."]


def _network_work(gflops: float, tables: SearchTables) -> str:
    saved = number(tables.facts.get("network_gflops_saved"))
    shared = f", {percent(saved / gflops)} of them saved by shared prefixes" if saved else ""
    return f"{flops(gflops)} in networks{shared}"
