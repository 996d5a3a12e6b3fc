"""Compare the speed of a training step with an earlier version's, and with a bare loop's."""
