"""Tables of confirmed scores for tests, made from a score per judge and noise that plans share."""

from __future__ import annotations

import numpy as np
import pandas as pd

COSTS = {"full": (4.0, 8.0), "few FLOPs": (1.0, 6.0), "quick": (2.0, 3.0), "4x1.00": (2.4, 5.0), "6x1.00": (3.0, 6.5)}
COSTS |= {"9x1.00": (5.4, 9.0), "12x1.00": (7.2, 12.0)}
"""GFLOPs and latency per plan."""


def scored(
    kind: str,
    plan: str,
    first: float,
    second: float,
    *,
    seeds: int = 5,
    noise: float = 0.001,
    sampler: str = "",
    blur: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """Return rows of confirm.parquet of one plan; mean scores differ between plans by what is given, exactly.

    `noise` is that of the plan alone.  `blur` is what a blur adds to the scores of both judges.
    """
    rng = np.random.default_rng([len(kind), *map(ord, plan + sampler)])
    shared = np.sin(np.arange(seeds))  # the same for every plan
    own = rng.normal(0, noise, (2, seeds))
    own -= own.mean(axis=1, keepdims=True)  # so that means are exact
    table = pd.DataFrame(
        {
            "kind": kind,
            "label": kind,
            "trial": {"few FLOPs": 1.0, "quick": 2.0}.get(plan),
            "plan": plan,
            "sampler": sampler,
            "gflops": COSTS[plan][0],
            "latency_ms": COSTS[plan][1],
            "noise_seed": np.arange(seeds),
            "images": 64,
            "fid": first + 0.3 * shared + own[0],
            "features": "classifier",
            "second_fid": second + 0.5 * shared + own[1],
            "second_features": "random",
        }
    )
    if blur is None:
        return table
    return table.assign(blurred_fid=table["fid"] + blur[0], second_blurred_fid=table["second_fid"] + blur[1])
