"""Attacks that also learn adversarially, or choose what the server sends."""
