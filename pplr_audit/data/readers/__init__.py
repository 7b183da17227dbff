"""Readers of published formats; all of them return the same dataset."""
