"""Attacks: one file each, in a folder named after what it reads."""
