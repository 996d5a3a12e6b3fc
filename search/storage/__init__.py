"""Keep runs in folders or at URIs: local copies of remote runs, and the locks that admit one driver at a time."""
