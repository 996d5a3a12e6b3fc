"""One file a network family."""
