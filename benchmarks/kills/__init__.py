"""Kill verbs at their file events, and fill their disk: `make bench-kills`."""
