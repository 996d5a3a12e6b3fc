"""Search the plans of a supernet for the Pareto front of quality against cost.  Imports trainers."""
