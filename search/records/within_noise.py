"""Mark the front points that a cheaper point of the front equals within noise.

The column `within_noise` has the trial of the cheapest such point, and -1 where there is none or noise is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from stepfront.arrays import Array
from stepfront.search.pareto import interval
from stepfront.search.records.score_noise import LEAST_FID, ScoreNoise
from stepfront.trainers.variant import parse_variants

NOT_WITHIN = -1


def mark_within_noise(
    front: pd.DataFrame, noise: ScoreNoise | None, cost: str, others: Array | None = None
) -> pd.DataFrame:
    """Return the front with `within_noise` by the scores of the search, which share one noise seed.

    Two points differ by no more than noise where their log FID differs by no more than `ScoreNoise.threshold`, and the
    cheaper one is worse in none of `others` [N, K]: the objectives beside FID and the cost, as they are minimised.
    """
    if noise is None:
        return front.assign(within_noise=NOT_WITHIN)

    def equal(cheaper: pd.Series, point: pd.Series) -> bool:
        gain = np.log(max(cheaper["fid"], LEAST_FID) / max(point["fid"], LEAST_FID))
        return bool(gain <= noise.threshold(differing_share(cheaper, point)))

    return _mark(front, cost, equal, others)


def mark_by_confirmation(
    front: pd.DataFrame, by_trial: Mapping[int, pd.DataFrame], cost: str, others: Array | None = None
) -> pd.DataFrame:
    """Return the front with `within_noise` of confirmed points by their scores on held-out noise seeds.

    `by_trial` has the confirmed scores of points, one row per seed.  A confirmed point is held against confirmed ones
    alone; others keep what the search's own scores say.
    Two points differ by no more than noise where the 95 % interval of their difference, seed by seed, does not lie
    below zero, and the cheaper one is worse in none of `others` [confirmed, K], as in `mark_within_noise`.
    """
    confirmed = front[front["trial"].isin(by_trial.keys())]
    scores = {trial: by_trial[trial].set_index("noise_seed")["fid"] for trial in confirmed["trial"]}

    def equal(cheaper: pd.Series, point: pd.Series) -> bool:
        differences = (scores[point["trial"]] - scores[cheaper["trial"]]).dropna().to_numpy(dtype=np.float64)
        return not (len(differences) > 1 and interval(differences)[2] < 0)

    marked = _mark(confirmed, cost, equal, others).set_index("trial")["within_noise"]
    return front.assign(within_noise=front["trial"].map(marked).fillna(front["within_noise"]).astype(int))


def differing_share(first: pd.Series, second: pd.Series) -> float:
    """Return the share of steps at which two rows' plans run different variants; 1 where times or solvers differ."""
    if first.get("solver") != second.get("solver"):
        return 1.0
    if len(first["times"]) != len(second["times"]) or not np.allclose(first["times"], second["times"]):
        return 1.0
    marks = (np.array([v.mark for v in parse_variants(str(row["plan"]))]) for row in (first, second))
    return float(np.mean((np.asarray(first["widths"]) != np.asarray(second["widths"])) | np.not_equal(*marks)))


def _mark(
    front: pd.DataFrame, cost: str, equal: Callable[[pd.Series, pd.Series], bool], others: Array | None
) -> pd.DataFrame:
    """Mark each point with the cheapest one that is `equal` to it and no worse in `others`."""
    places = np.argsort(front[cost].to_numpy(), kind="stable")
    order = [front.iloc[place] for place in places]
    ranked = np.zeros((len(front), 0)) if others is None else others[places]
    found = {
        int(point["trial"]): next(
            (int(order[j]["trial"]) for j in range(i) if (ranked[j] <= ranked[i]).all() and equal(order[j], point)),
            NOT_WITHIN,
        )
        for i, point in enumerate(order)
    }
    return front.assign(within_noise=[found[int(trial)] for trial in front["trial"]])
