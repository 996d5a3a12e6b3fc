"""The groups of settings that a search adds to those of its trainer, and how a settings file is read."""
