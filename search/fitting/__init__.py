"""Fit samplers and weights to plans of a search: to points that a user names, and in pauses of the search."""
