"""Recordings of other systems: read, checked, and attacked as what a training of ours leaves."""
