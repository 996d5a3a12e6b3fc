"""Define the command line: one file per group of verbs, and what they share."""
