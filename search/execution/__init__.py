"""Run evaluations and trainings on a Ray cluster: session, placement, workers, Ray Tune and Ray Train."""
