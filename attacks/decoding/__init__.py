"""Decoding of word scores into titles, items and labels."""
