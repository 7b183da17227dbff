"""Attacks on the gradients that cross at the back cut."""
