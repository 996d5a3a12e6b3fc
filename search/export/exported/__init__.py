"""Hold programs that are copied into an exported point; they import nothing of this package."""
