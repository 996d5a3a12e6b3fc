"""Draw what verbs list as tables: runs, jobs, baselines."""
