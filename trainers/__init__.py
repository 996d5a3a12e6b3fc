"""Make a slimmable supernet and run plans on it.  Knows nothing of searching, Ray Tune, Optuna or MLflow."""
