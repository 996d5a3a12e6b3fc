"""The feature sets that ship with the package, and how features from files are read."""
