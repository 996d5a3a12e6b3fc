"""Build slimmable networks: the families, the supernet that holds every width, and its files."""
