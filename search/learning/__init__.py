"""Learn the samplers of a search, and those of single points of its front."""
