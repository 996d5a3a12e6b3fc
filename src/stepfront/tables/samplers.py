"""Name the solver and grid of the rows of a table, where plans choose theirs."""

from __future__ import annotations

import pandas as pd

GENES_MARK = "/"
"""What stands in a genome between the widths and the genes of solver and grid."""


def sampler_texts(plans: pd.DataFrame) -> list[str]:
    """Return solver and grid of each row, `unipc_2, leading grid`; nothing where plans can't choose theirs."""
    genomes = plans.get("genome", pd.Series(dtype=str)).astype(str)
    if not genomes.str.contains(GENES_MARK, regex=False).any():
        return []
    return [
        f"{solver}, {grid} grid" if grid else f"learnt from {solver}"
        for solver, grid in zip(plans["solver"], plans["grid"], strict=True)
    ]
