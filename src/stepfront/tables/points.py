"""Pick a point of the front by its label, its trial or a query."""

from __future__ import annotations

import pandas as pd

from stepfront.errors import InputError

QUERIES = (("fid", "gflops"), ("gflops", "fid"))
"""Columns that a query can bound, each with the column that is then least."""

MOST_SHOWN = 10
"""Trials that an error names, at most."""


def pick_point(front: pd.DataFrame, point: str) -> pd.Series:
    """Return a front point by label (knee, best, cheapest), trial number, or query such as `fid<=12`.

    `fid<=X` is the cheapest point at least that good; `gflops<=X` the best point at most that expensive.  Queries read
    the confirmed FID where every point has one, and never return a point that its confirmation took off the front.
    Raises InputError when the front has no such point.
    """
    if not len(front):
        raise InputError("the front is empty")
    for column, order in QUERIES:
        if point.replace(" ", "").startswith(f"{column}<="):
            return _query(front, point, column, order)
    if point.isdigit():
        rows = front[front["trial"] == int(point)]
    else:
        rows = front[[point in filter(None, label.split(",")) for label in front["label"]]]
    if len(rows):
        return rows.iloc[0]
    trials = [str(trial) for trial in sorted(front["trial"])]
    shown = ", ".join([*trials[:MOST_SHOWN], *(["..."] if len(trials) > MOST_SHOWN else [])])
    raise InputError(
        f"no point {point!r} on the front; possible: knee, best, cheapest, queries like 'fid<=12' and 'gflops<=1.5', "
        f"and its trials {shown}"
    )


def _query(front: pd.DataFrame, point: str, column: str, order: str) -> pd.Series:
    try:
        bound = float(point.partition("<=")[2])
    except ValueError:
        raise InputError(f"{point!r} is not a query; queries look like 'fid<=12' or 'gflops<=1.5'") from None
    confirmed = front["fid_confirmed"].notna().all()
    front = front[front["belongs"].astype(bool)]
    values = front.assign(fid=front["fid_confirmed"]) if confirmed else front  # as the labels knee and best
    found = values[values[column] <= bound]
    if not len(found):
        name = f"a confirmed {column}" if confirmed and column == "fid" else column
        raise InputError(f"no front point has {name} <= {bound:g}; the least is {values[column].min():.4g}")
    return front.loc[found.sort_values(order).index[0]]
