"""Damage the files of a search, and count what the verbs make of it: `make bench-damage`."""
