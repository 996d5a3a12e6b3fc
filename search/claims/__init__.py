"""Decide what confirmed scores show: quality that is not worse by a margin, and where two judges disagree."""
