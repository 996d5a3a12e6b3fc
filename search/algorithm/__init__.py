"""Propose the next plan to evaluate: variation, NSGA-II, and screening by proxies."""
