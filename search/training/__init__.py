"""Trainings on Ray workers: several that share the batches of one training, and several trainings at once."""
