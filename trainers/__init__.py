"""Makes a slimmable supernet and runs plans on it.  Knows nothing of searching, Ray Tune, Optuna or MLflow."""
