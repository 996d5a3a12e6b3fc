"""Hold programs that are copied into exported folders; they import nothing of this package but each other."""
