"""Propose the next plan to evaluate: encodings, variation, NSGA-II, and screening by proxies."""
