"""Measure how well each proxy ranks the plans of a search: tables of trials to tables of scores and correlations.

A proxy is judged by its rank correlation (Kendall's tau) with FID over the complete trials.  That of `model` is
leave-one-out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from stepfront.plugins import PROXIES
from stepfront.search.algorithm.proxies import ProxyScore, rank_correlation
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, PlanFeatures
from stepfront.search.algorithm.transfer import make_model
from stepfront.search.genomes.encodings import Levels
from stepfront.search.pareto import domination_rank


def proxies_table(
    trials: pd.DataFrame, score: ProxyScore, features: PlanFeatures, unpack: Callable[[str], Levels]
) -> pd.DataFrame:
    """Return one row per trial and proxy: the finite scores of all complete trials on every proxy, and their FID.

    `score` is the gap score, `unpack` reads a genome.  Fitted plans are left out: no proxy knows their samplers.
    """
    complete = trials[(trials["state"] == "complete") & (trials["origin"] != "fit")].sort_values(["elapsed", "trial"])
    levels = [unpack(genome) for genome in complete["genome"]]
    fid = complete["fid"].to_numpy(dtype=np.float64)
    without = np.full(len(fid), np.nan)
    if len(fid) >= LEAST_TRIALS:
        scores = complete[["fid", "gflops"]].to_numpy(dtype=np.float64)
        without = np.exp(
            make_model(features).learn(features(levels), fid, lambda most: domination_rank(scores, enough=most))
        )
    columns = {"gap": [score(one) for one in levels], "paired": complete["paired"], "model": without, "fid": fid}
    wide = pd.DataFrame(
        {"trial": complete["trial"].astype(int), **{k: np.asarray(v, float) for k, v in columns.items()}}
    )
    return wide.melt("trial", var_name="proxy", value_name="score").dropna(subset=["score"]).reset_index(drop=True)


def correlations(proxies: pd.DataFrame) -> list[dict[str, object]]:
    """Return Kendall's tau of each proxy with FID; none from fewer than `LEAST_TRIALS` trials."""
    wide = proxies.pivot(index="trial", columns="proxy", values="score")
    found: list[dict[str, object]] = []
    for lower in PROXIES.ours:
        if lower in wide and "fid" in wide:
            pairs = wide[[lower, "fid"]].dropna()
            tau = rank_correlation(pairs[lower].to_numpy(), pairs["fid"].to_numpy())
            if np.isfinite(tau) and len(pairs) >= LEAST_TRIALS:
                found.append({"lower": lower, "upper": "fid", "tau": round(tau, 4), "n": len(pairs)})
    return found
