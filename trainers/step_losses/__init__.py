"""Measure what each width loses at single steps: the growth of the loss, and the error of a step."""
