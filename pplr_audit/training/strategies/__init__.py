"""Strategies: each mixes the clients' contributions of a round into their new models."""
