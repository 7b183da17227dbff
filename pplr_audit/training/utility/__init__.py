"""Utility: how good the recommendations of trained models are, for everyone and for each user."""
