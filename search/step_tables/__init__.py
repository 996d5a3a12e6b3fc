"""Measure once per search, and store, what each width loses at each step: the gap table and the errors of steps."""
