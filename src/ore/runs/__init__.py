"""Runs: from an accepted request to its one terminal status."""
