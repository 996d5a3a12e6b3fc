"""Draw tables that fit a terminal of any width."""
