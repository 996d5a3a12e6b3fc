"""Reach MLflow and write runs: clients, a thread that writes, and notes of what is written."""
