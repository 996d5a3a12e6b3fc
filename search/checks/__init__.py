"""Check what a search needs (`stepfront doctor`), and check or repair a search."""
