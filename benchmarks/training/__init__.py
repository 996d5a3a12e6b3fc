"""Compare trainings at equal network FLOPs: rules and losses, second stages, and each width trained alone."""
