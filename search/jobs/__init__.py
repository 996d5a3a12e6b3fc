"""Submit trainings and searches to a Ray cluster as jobs, and follow them."""
