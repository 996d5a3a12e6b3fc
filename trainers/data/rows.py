"""Choose rows: the share that `data.limit` takes of each class, and the images that are held out."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stepfront.trainers.data.spill_buffer import Labels

Rows: TypeAlias = NDArray[np.intp]
"""Row numbers, ascending."""


def limited_rows(count: int, labels: Labels | None, limit: int | None) -> Rows:
    """Return at most `limit` of `count` rows, of each class in proportion; the same ones in every process.

    Remainders go to the classes with the largest ones, and every class keeps a row where the limit allows it.
    """
    if limit is None or limit >= count:
        return np.arange(count)
    kinds = np.zeros(count, np.int64) if labels is None else labels
    sizes = np.bincount(kinds)
    exact = sizes * (limit / count)
    shares = np.floor(exact).astype(np.int64)
    if np.count_nonzero(sizes) <= limit:
        shares = np.maximum(shares, sizes > 0)
    for number in np.argsort(shares - exact, kind="stable"):
        if shares.sum() < limit and shares[number] < sizes[number]:
            shares[number] += 1
    while shares.sum() > limit:  # classes that were given a row take it from the largest
        shares[shares.argmax()] -= 1
    order = np.random.Generator(np.random.Philox(0)).permutation(count)
    chosen = [order[kinds[order] == number][:share] for number, share in enumerate(shares) if share]
    return np.sort(np.concatenate(chosen))


def held_out_rows(count: int, labels: Labels | None, share: float) -> tuple[Rows, Rows]:
    """Return the rows to train on and those that are held out; no class loses its last training image."""
    # A fixed permutation: which images are held out must not depend on the training seed.
    order = np.random.Generator(np.random.Philox(0)).permutation(count)
    cut = max(1, round(share * count))
    used, held = np.sort(order[cut:]), np.sort(order[:cut])
    if labels is None or not len(used):
        return used, held
    lost = np.setdiff1d(labels[held], labels[used])
    back = np.array([held[labels[held] == number][0] for number in lost], np.intp)
    return np.sort(np.concatenate([used, back])), np.setdiff1d(held, back)
