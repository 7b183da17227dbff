"""Attacks on activations at the front cut."""
