"""Attacks that train: federations of their own, run for one cell."""
