"""Make the first generation of a search: plans of every kind, and the front of an earlier search."""
