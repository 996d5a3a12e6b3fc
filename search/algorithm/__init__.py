"""Propose the next plan to evaluate: encodings, initial plans, variation, NSGA-II, and screening by proxies."""
