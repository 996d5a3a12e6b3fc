"""Write searches and trainings to MLflow, and show them in its UI."""
