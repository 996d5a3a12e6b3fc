"""Measure a GPU in a few minutes: training, sampling and every engine, each part in a process of its own."""
