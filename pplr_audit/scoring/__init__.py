"""Guesses against truth, in numbers: pure functions on numpy arrays, which import nothing of ours."""
