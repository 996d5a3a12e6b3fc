"""Tests of stepfront.trainers.network_families."""
