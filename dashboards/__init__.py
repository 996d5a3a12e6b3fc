"""Draw what a search found, from its tables alone, without networks, clusters or studies."""
