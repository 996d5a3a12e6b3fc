"""Export a point of a Pareto front: as a self-contained folder, or as a registered MLflow model."""
