"""Continue a search with more budget, and in a larger space."""
