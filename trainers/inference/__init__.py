"""Run networks fast: engines, prefix cache and cost of widths and plans."""
