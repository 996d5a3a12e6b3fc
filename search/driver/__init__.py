"""Run the steps of the method: train, search, score the baselines, confirm, and publish the results."""
