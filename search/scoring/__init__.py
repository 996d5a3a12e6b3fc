"""Score plans again beside the search: on held-out noise, by baselines, and to measure the noise."""
