"""Read images of every dataset format: one reader per format."""
