"""Finds plans: a supernet and settings in, the Pareto front of quality against cost out.  Imports trainers."""
