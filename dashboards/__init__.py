"""Draws what a search found, from its tables alone.  Knows nothing of networks, clusters or studies."""
