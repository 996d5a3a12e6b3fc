"""Set up what a supernet is held against: each of its widths trained alone."""
